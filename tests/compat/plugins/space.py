"""A space with options, conditions, a constraint, counts, pretrained weights, a reference, and a format of its own.

FROZEN: written against nas-meta 0.1. Never edited to make a test pass, for an author's own plugin is not either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nas_meta import Architecture, Choice, PluginOptions, SearchSpace
from nas_meta.tasks.pool import Tasks


class BagOptions(PluginOptions):
    """Options of the space."""

    tokenizer: str = Field(description="a folder with a tokenizer")
    vocabulary: int = Field(40, ge=1, description="rows of the table of embeddings")
    widths: list[int] = Field([4, 8, 16], description="widths of the hidden layer")
    activation: Literal["relu", "tanh"] = "relu"


class Bag(nn.Module):
    """Tokens through a table and a small network, each on its own."""

    def __init__(self, vocabulary: int, width: int, hidden: int | None, activation: str):
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        act = nn.ReLU() if activation == "relu" else nn.Tanh()
        self.body: nn.Module = nn.Identity()
        if hidden is not None:
            self.body = nn.Sequential(nn.Linear(width, hidden), act, nn.Linear(hidden, width))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        z = self.table(input_ids)
        result: Tensor = z + self.body(z)
        return result


class BagSpace(SearchSpace):
    """Bags of words: how wide, and with what network if any."""

    Options = BagOptions
    options: BagOptions

    def __init__(self, options: BagOptions | None = None):
        super().__init__(options)
        self.tokenizer = self.options.tokenizer
        self.prepared: dict[int, Tensor] = {}

    def choices(self) -> Mapping[str, Choice | Sequence[int | str | bool]]:
        return {
            "width": self.options.widths,
            "network": ["none", "small", "large"],
            "hidden": Choice([2, 4, 8], when={"network": ("small", "large")}),
            "double": Choice([False, True], when={"network": "large"}),
        }

    def problem(self, architecture: Architecture) -> str | None:
        if architecture.values.get("hidden") == 8 and architecture["width"] == min(self.options.widths):
            return "its hidden layer is too wide for it"
        return None

    def build(self, architecture: Architecture) -> nn.Module:
        hidden = self._hidden(architecture)
        model = Bag(self.options.vocabulary, architecture["width"], hidden, self.options.activation)
        if architecture["width"] in self.prepared:
            model.table.load_state_dict({"weight": self.prepared[architecture["width"]]})
        return model

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        width, hidden = architecture["width"], self._hidden(architecture)
        network = 0 if hidden is None else 2 * width * hidden + hidden + width
        flops = 0 if hidden is None else 4 * width * hidden * tokens
        return {"params": self.options.vocabulary * width + network, "flops": flops}

    def prepare(self, tasks: Tasks, seed: int) -> None:
        """Tables from how often tokens stand in meta-train, so that workers see that they come from the driver."""
        rows = self.options.vocabulary
        often = torch.bincount(torch.from_numpy(tasks["meta-train"].tokens).long(), minlength=rows).float()
        generator = torch.Generator().manual_seed(seed)
        for width in self.options.widths:
            self.prepared[width] = torch.randn(rows, width, generator=generator) + often[:rows, None] / often.sum()

    def reference(self) -> nn.Module:
        return Bag(self.options.vocabulary, max(self.options.widths), None, self.options.activation)

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        described = {"model_type": "bag", "architecture": dict(architecture.values)}
        (folder / "config.json").write_text(json.dumps(described))
        save_file(model.state_dict(), folder / "model.safetensors")

    def load(self, folder: Path) -> nn.Module:
        architecture = self.architecture(json.loads((folder / "config.json").read_text())["architecture"])
        model = self.build(architecture)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model

    def _hidden(self, architecture: Architecture) -> int | None:
        if architecture["network"] == "none":
            return None
        hidden: int = architecture["hidden"]
        return 2 * hidden if architecture.values.get("double") else hidden
