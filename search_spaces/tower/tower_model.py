"""Two towers: an image encoder and a text encoder whose embeddings are projected and joined into one.

z = J(N(P_image · mean(states of the image)), N(P_text · mean(states of the text))), P linear, N a LayerNorm, so that
neither tower drowns the other, J the concatenation or the sum. The file needs torch, transformers and safetensors
alone: it is copied into every exported folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig
from transformers.utils import cached_file

PARTS = ("image", "text")
JOINT = "tower.safetensors"
HUB = ("cache_dir", "force_download", "local_files_only", "revision", "token")


class TowerConfig(PretrainedConfig):
    """Widths of the two towers and of their projections, and how these are joined: ``concatenate`` or ``sum``."""

    model_type = "nas-meta-tower"

    def __init__(
        self, image_width: int = 64, text_width: int = 384, width: int = 64, join: str = "concatenate", **kwargs
    ):
        super().__init__(**kwargs)
        self.image_width, self.text_width, self.width, self.join = image_width, text_width, width, join


class Projection(nn.Module):
    """Embeddings ``[B, in]`` to ``[B, out]`` of mean 0 and deviation 1."""

    def __init__(self, inward: int, outward: int):
        super().__init__()
        self.linear = nn.Linear(inward, outward)
        self.norm = nn.LayerNorm(outward)

    def forward(self, z: Tensor) -> Tensor:
        return self.norm(self.linear(z))


class TowerModel(nn.Module):
    """An image encoder and a text encoder side by side."""

    config_class = TowerConfig

    def __init__(self, config: TowerConfig, image: nn.Module, text: nn.Module):
        super().__init__()
        self.config = config
        self.image, self.text = image, text
        self.image_projection = Projection(config.image_width, config.width)
        self.text_projection = Projection(config.text_width, config.width)

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Embeddings ``[B, 2 · width]`` where they are concatenated, ``[B, width]`` where they are summed.

        Args:
            pixel_values: ``[B, channels, height, width]``.
            input_ids, attention_mask: ``[B, tokens]``.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        seen = self.image_projection(pooled(self.image(pixel_values=pixel_values)))
        read = self.text_projection(pooled(self.text(input_ids=input_ids, attention_mask=mask), mask))
        return torch.cat([seen, read], dim=-1) if self.config.join == "concatenate" else seen + read

    def save_joint(self, folder: Path) -> None:
        """Writes everything but the towers, whose folders are ``image`` and ``text``."""
        own = {n: t.contiguous() for n, t in self.state_dict().items() if n.partition(".")[0] not in PARTS}
        save_file(own, folder / JOINT)
        self.config.auto_map = {"AutoConfig": "tower_model.TowerConfig", "AutoModel": "tower_model.TowerModel"}
        self.config.save_pretrained(folder)
        (folder / "tower_model.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """What transformers asks of a class that came with a folder."""
        cls._auto_class = auto_class if isinstance(auto_class, str) else auto_class.__name__

    @classmethod
    def joined(cls, config: TowerConfig, image: nn.Module, text: nn.Module, weights: str | Path) -> TowerModel:
        """Loaded towers with what :meth:`save_joint` wrote.

        Raises:
            ValueError: the weights do not fit.
        """
        model, state = cls(config, image, text), load_file(weights)
        try:
            fits = model.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(f"{weights} does not fit the config beside it") from error
        if fits.unexpected_keys or any(name.partition(".")[0] not in PARTS for name in fits.missing_keys):
            raise ValueError(f"{weights} does not hold the projections of two towers")
        return model.eval()

    @classmethod
    def from_pretrained(cls, folder: str, *_: Any, config: TowerConfig | None = None, **given: Any) -> TowerModel:
        """What ``AutoModel.from_pretrained(folder, trust_remote_code=True)`` calls: a folder, or a name on the hub."""
        hub = {name: given[name] for name in HUB if given.get(name) is not None}
        config = config or TowerConfig.from_pretrained(folder, **hub)
        # This file came from that folder where its user trusts it; then a tower may bring code of its own, too.
        trusted = cls.__module__.startswith("transformers_modules")
        towers = [AutoModel.from_pretrained(folder, subfolder=p, trust_remote_code=trusted, **hub) for p in PARTS]
        return cls.joined(config, *towers, cached_file(folder, JOINT, **hub))


def pooled(output: Any, mask: Tensor | None = None) -> Tensor:
    """Embeddings ``[B, width]`` of states ``[B, T, width]``: their mean over the mask ``[B, T]``, or over all."""
    states = output if isinstance(output, Tensor) else output.last_hidden_state
    if states.ndim == 2:
        return states
    if mask is None:
        return states.mean(1)
    mask = mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1)
