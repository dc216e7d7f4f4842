"""Two-tower model: an image encoder and a text encoder whose embeddings are projected and joined into one.

The embedding is z = J(N(P_image · mean(image states)), N(P_text · mean(text states))), where P is linear, J is the
concatenation or the sum, and N is a LayerNorm, which gives both towers the same scale.

This file is copied into every exported folder, so it imports only torch, transformers and safetensors.
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
    """Configuration of a two-tower model.

    Args:
        image_width: Width of an embedding of the image encoder.
        text_width: Width of an embedding of the text encoder.
        width: Width of each projected embedding.
        join: ``concatenate`` or ``sum``.
        **kwargs: Passed to ``PretrainedConfig``.
    """

    model_type = "nas-meta-tower"

    def __init__(
        self, image_width: int = 64, text_width: int = 384, width: int = 64, join: str = "concatenate", **kwargs
    ):
        super().__init__(**kwargs)
        self.image_width, self.text_width, self.width, self.join = image_width, text_width, width, join


class Projection(nn.Module):
    """Linear projection followed by a LayerNorm: embeddings ``[B, inward]`` to ``[B, outward]``.

    Args:
        inward: Width of the input.
        outward: Width of the output.
    """

    def __init__(self, inward: int, outward: int):
        super().__init__()
        self.linear = nn.Linear(inward, outward)
        self.norm = nn.LayerNorm(outward)

    def forward(self, z: Tensor) -> Tensor:
        return self.norm(self.linear(z))


class TowerModel(nn.Module):
    """An image encoder and a text encoder with projections into a common embedding.

    Args:
        config: Widths, and how the projected embeddings are joined.
        image: Takes ``pixel_values`` and returns states ``[B, T, image_width]``, embeddings ``[B, image_width]``, or a
            Hugging Face output with ``last_hidden_state``.
        text: Takes ``input_ids`` and ``attention_mask`` and returns the same kinds of output, ``text_width`` wide.
    """

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
        """Return the joint embeddings of images with texts.

        Args:
            pixel_values: Images ``[B, channels, height, width]``.
            input_ids: Token ids ``[B, T]``.
            attention_mask: ``[B, T]``, 1 at tokens and 0 at padding; no padding by default.

        Returns:
            Embeddings ``[B, 2 * width]`` if they are concatenated, ``[B, width]`` if they are summed.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        image = self.image_projection(pooled(self.image(pixel_values=pixel_values)))
        text = self.text_projection(pooled(self.text(input_ids=input_ids, attention_mask=mask), mask))
        return torch.cat([image, text], dim=-1) if self.config.join == "concatenate" else image + text

    def save_joint(self, folder: Path) -> None:
        """Write the projections, the config and this file; the towers are saved apart, to ``image`` and ``text``.

        Args:
            folder: The exported folder.
        """
        joint = {n: t.contiguous() for n, t in self.state_dict().items() if n.partition(".")[0] not in PARTS}
        save_file(joint, folder / JOINT)
        self.config.auto_map = {"AutoConfig": "tower_model.TowerConfig", "AutoModel": "tower_model.TowerModel"}
        self.config.save_pretrained(folder)
        (folder / "tower_model.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Register the class with an auto class, as transformers does with classes that come with a folder.

        Args:
            auto_class: The auto class or its name.
        """
        cls._auto_class = auto_class if isinstance(auto_class, str) else auto_class.__name__

    @classmethod
    def joined(cls, config: TowerConfig, image: nn.Module, text: nn.Module, weights: str | Path) -> TowerModel:
        """Combine two loaded towers with the projections that :meth:`save_joint` wrote.

        Args:
            config: Configuration of the two-tower model.
            image: The image encoder.
            text: The text encoder.
            weights: File with the weights of the projections.

        Returns:
            The model in evaluation mode.

        Raises:
            ValueError: The weights do not match the configuration.
        """
        model, state = cls(config, image, text), load_file(weights)
        try:
            keys = model.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise ValueError(f"{weights} does not match the config.json in its folder") from error
        if keys.unexpected_keys or any(name.partition(".")[0] not in PARTS for name in keys.missing_keys):
            raise ValueError(f"{weights} does not contain the projections of both towers")
        return model.eval()

    @classmethod
    def from_pretrained(cls, folder: str, *_: Any, config: TowerConfig | None = None, **kwargs: Any) -> TowerModel:
        """Load a two-tower model; called by ``AutoModel.from_pretrained(folder, trust_remote_code=True)``.

        Args:
            folder: An exported folder, or the name of one on the Hugging Face hub.
            config: Configuration of the model; read from the folder by default.
            **kwargs: Options of the hub, such as ``revision``; others are ignored.

        Returns:
            The model in evaluation mode.
        """
        hub = {name: kwargs[name] for name in HUB if kwargs.get(name) is not None}
        config = config or TowerConfig.from_pretrained(folder, **hub)
        # transformers loads this file from a folder only if the user trusts it; then its towers may bring code, too.
        trusted = cls.__module__.startswith("transformers_modules")
        if Path(folder).is_dir():  # transformers looks for code in a folder, but not in its subfolders
            towers = [AutoModel.from_pretrained(Path(folder) / p, trust_remote_code=trusted) for p in PARTS]
        else:
            towers = [AutoModel.from_pretrained(folder, subfolder=p, trust_remote_code=trusted, **hub) for p in PARTS]
        return cls.joined(config, *towers, cached_file(folder, JOINT, **hub))


def pooled(output: Any, mask: Tensor | None = None) -> Tensor:
    """Pool the output of an encoder into embeddings by the mean over tokens.

    Args:
        output: States ``[B, T, width]``, embeddings ``[B, width]``, which are returned unchanged, or a Hugging Face
            output with ``last_hidden_state``.
        mask: ``[B, T]``, 1 at the states to average; all states by default.

    Returns:
        Embeddings ``[B, width]``.
    """
    states = output if isinstance(output, Tensor) else output.last_hidden_state
    if states.ndim == 2:
        return states
    if mask is None:
        return states.mean(1)
    mask = mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1)
