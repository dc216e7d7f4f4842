"""Search space ``peft-bert``: which adapter each layer of a frozen encoder gets, with what rank and where.

The idea is that of AutoPEFT (Zhou et al. 2024, "AutoPEFT: Automatic Configuration Search for Parameter-Efficient
Fine-Tuning"): the encoder is frozen, and the search chooses for each layer between no adapter, LoRA, a parallel adapter
and IA³. All of them are merged into the weights when a model is saved.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nas_meta import Architecture, Choice, PluginOptions, SearchSpace
from nas_meta.core.paths import ModelName
from nas_meta.tasks.packaged_models import MINILM
from nas_meta.tasks.pool import Tasks
from search_spaces.pretrained.loading import load_pretrained, model_from_arrays

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.pretrained.adapter_counts import AdapterSizes

PARTS = {"attention": ("attention",), "ffn": ("ffn",), "both": ("attention", "ffn")}


class PeftBertOptions(PluginOptions):
    """Options of the search space ``peft-bert``."""

    model: ModelName = Field(MINILM, description="pretrained encoder: a folder, a hub name, or starter:minilm")
    adapters: list[Literal["none", "lora", "adapter", "ia3"]] = Field(
        ["none", "lora", "adapter", "ia3"], min_length=1, description="candidate adapters of a layer"
    )
    ranks: list[int] = Field([2, 8, 32], min_length=1, description="candidate ranks of LoRA and widths of adapters")
    modules: list[Literal["attention", "ffn", "both"]] = Field(
        ["attention", "ffn", "both"], min_length=1, description="candidate places for LoRA and IA³ in a layer"
    )
    max_trained: float | None = Field(
        None, gt=0, description="maximum number of trained parameters; no limit by default"
    )


class PeftBert(SearchSpace):
    """Adapters in a frozen pretrained encoder: none, LoRA, a parallel adapter or IA³ in each layer.

    Args:
        options: Encoder, adapters and limits; the defaults of ``PeftBertOptions`` if None.
    """

    Options = PeftBertOptions
    pretrained = True

    def __init__(self, options: PeftBertOptions | None = None):
        super().__init__(options)
        self.tokenizer = self.options.model
        self._weights: dict[str, np.ndarray] | None = None
        self._config: Any = None

    @cached_property
    def layers(self) -> int:
        """Number of layers of the encoder."""
        from nas_meta.models.adapters import stack

        return len(stack(self._full)[1])

    def choices(self) -> Mapping[str, Choice]:
        o = self.options
        table: dict[str, Choice] = {}
        for i in range(self.layers):
            table[f"layer{i}.part"] = Choice(tuple(o.adapters))
            table[f"layer{i}.rank"] = Choice(tuple(o.ranks), when={f"layer{i}.part": ("lora", "adapter")})
            table[f"layer{i}.on"] = Choice(tuple(o.modules), when={f"layer{i}.part": ("lora", "ia3")})
        return table

    def problem(self, architecture: Architecture) -> str | None:
        if not self.insertions(architecture):
            return "no layer has an adapter to train; expected at least one"
        if self.options.max_trained is not None:
            trained = self.count_trained(architecture)
            if trained > self.options.max_trained:
                return f"it trains {trained:,} parameters; expected at most {self.options.max_trained:,.0f}"
        return None

    def prepare(self, tasks: Tasks, seed: int) -> None:
        from nas_meta.models.token_checks import check_tokens

        check_tokens(self._full, tasks, f"space.model '{self.options.model}'")
        self._config = self._full.config
        # Arrays instead of tensors, so that Ray shares one copy between the workers of a node.
        self._weights = {name: tensor.numpy() for name, tensor in self._full.state_dict().items()}

    def build(self, architecture: Architecture) -> nn.Module:
        from nas_meta.models.adapters import insert

        model = copy.deepcopy(self._full).requires_grad_(False)
        insert(model, self.insertions(architecture))
        return model

    def reference(self) -> nn.Module:
        return copy.deepcopy(self._full)

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Write a standard folder: LoRA and IA³ are merged into the weights, adapters become additional neurons.

        Layers with different numbers of neurons bring the code that loads them; see
        :func:`search_spaces.pretrained.subnet_folder.save_subnet`.
        """
        from nas_meta.models.adapters import stack, without_adapters
        from search_spaces.pretrained.subnet_folder import save_subnet

        merged = without_adapters(copy.deepcopy(model), merge=True)
        if any(insertion.kind == "adapter" for insertion in self.insertions(architecture).values()):
            save_subnet(merged, folder, stack(merged)[0])
        else:  # all weights have the shapes of the encoder
            merged.save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        from search_spaces.pretrained.subnet_folder import load_subnet

        return load_subnet(folder)

    def insertions(self, architecture: Architecture) -> dict[int, Any]:
        """Return the adapters of an architecture.

        Args:
            architecture: An architecture of the space.

        Returns:
            An ``Insertion`` by the index of its layer; layers without an adapter are left out.
        """
        from nas_meta.models.adapters import Insertion

        return {
            i: Insertion(
                architecture[f"layer{i}.part"],
                architecture.values.get(f"layer{i}.rank", 1),
                PARTS[architecture.values.get(f"layer{i}.on", "ffn")],
            )
            for i in range(self.layers)
            if architecture[f"layer{i}.part"] != "none"
        }

    def count_trained(self, architecture: Architecture) -> int:
        """Count the trained parameters of an architecture from the sizes of the encoder, without building it.

        Args:
            architecture: An architecture of the space.

        Returns:
            Number of parameters of all adapters.
        """
        return sum(self._sizes.adapter(i, part).params for i, part in self.insertions(architecture).items())

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Count parameters and FLOPs from the sizes alone; nothing before :meth:`prepare`.

        FLOPs are those of the encoder plus 2 · tokens · (weights of the adapters); IA³ adds none.
        """
        if self._weights is None:
            return {}
        parts = [self._sizes.adapter(i, part) for i, part in self.insertions(architecture).items()]
        return {
            "params": self._sizes.params + sum(part.params for part in parts),
            "flops": self._sizes.flops(tokens) + 2 * sum(p.matrices * tokens + p.products for p in parts),
        }

    @cached_property
    def _sizes(self) -> AdapterSizes:
        """Sizes of the encoder, from which the counts follow."""
        from search_spaces.pretrained.adapter_counts import AdapterSizes

        return AdapterSizes(self._full)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_full", "_sizes")}

    @cached_property
    def _full(self) -> nn.Module:
        """The pretrained model; on a worker, rebuilt from the weights that came with the space.

        The random state is preserved: what a worker computes must not depend on whether it had the model before.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            if self._weights is None:
                return load_pretrained(self.options.model)
            return model_from_arrays(self._config, self._weights).eval()
