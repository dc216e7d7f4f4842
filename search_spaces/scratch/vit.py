"""Small vision transformers from scratch: patches, depth, hidden size, heads and feed-forward widths."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from nas_meta import Architecture, Choice, PluginOptions, SearchSpace
from nas_meta.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

NEURONS = "nas_meta_neurons"  # of every layer, in the config of an exported model


class ViTOptions(PluginOptions):
    """Options of ``vit``."""

    image_size: int = Field(8, ge=1, description="height and width of the images, in pixels")
    channels: int = Field(1, ge=1, description="channels of the images: 1 for grey, 3 for colours")
    patches: list[int] = Field([2, 4], min_length=1, description="heights and widths that patches may have, in pixels")
    depths: list[int] = Field([1, 2, 3, 4], min_length=1, description="numbers of layers")
    hidden: list[int] = Field([32, 64], min_length=1, description="hidden sizes")
    heads: list[int] = Field(
        [2, 4], min_length=1, description="numbers of attention heads, divisors of the hidden size"
    )
    mlp: list[float] = Field(
        [1.0, 2.0, 4.0], min_length=1, description="widths of the feed-forward, as multiples of the hidden size"
    )
    per_layer: bool = Field(True, description="whether each layer has its own width, or all have the same")


class ViT(SearchSpace):
    """Vision transformers (Dosovitskiy et al. 2021) from scratch, built on transformers' ViT."""

    Options = ViTOptions
    modality = "image"

    def __init__(self, options: ViTOptions | None = None):
        super().__init__(options)
        o = self.options
        self.image_shape = (o.channels, o.image_size, o.image_size)
        for name, right, expected in (
            ("patches", lambda n: n >= 1 and o.image_size % n == 0, f"divisors of image_size, {o.image_size}"),
            ("depths", lambda n: n >= 1, "numbers from 1 on"),
            ("hidden", lambda n: n >= 1, "numbers from 1 on"),
            ("heads", lambda n: n >= 1, "numbers from 1 on"),
            ("mlp", lambda ratio: ratio > 0, "multiples above 0"),
        ):
            wrong = [value for value in getattr(o, name) if not right(value)]
            if wrong:
                raise ConfigError(f"space.{name} has {wrong[0]}; expected {expected}")

    def choices(self) -> Mapping[str, Choice | Sequence[int | float]]:
        o = self.options
        table = {"patch": o.patches, "depth": o.depths, "hidden": o.hidden, "heads": o.heads}
        if not o.per_layer:
            return {**table, "mlp": o.mlp}
        # A layer that the depth does not reach has no width.
        deeper = [tuple(depth for depth in o.depths if depth > i) for i in range(max(o.depths))]
        return table | {f"layer{i}.mlp": Choice(o.mlp, when={"depth": depths}) for i, depths in enumerate(deeper)}

    def problem(self, architecture: Architecture) -> str | None:
        hidden, heads = architecture["hidden"], architecture["heads"]
        return f"{heads} heads do not divide the hidden size {hidden}" if hidden % heads else None

    def size(self) -> int:
        """Exact: pairs of a hidden size and heads that divide it, times patches, times Σ over depths d of widths^d."""
        o = self.options
        pairs = sum(1 for hidden in o.hidden for heads in o.heads if hidden % heads == 0)
        widths = len(o.mlp)
        return pairs * len(o.patches) * sum(widths**depth if o.per_layer else widths for depth in o.depths)

    def width(self, architecture: Architecture) -> int:
        """The length of an embedding."""
        return architecture["hidden"]

    def neurons(self, architecture: Architecture) -> list[int]:
        """The width of the feed-forward in every layer."""
        names = [f"layer{i}.mlp" if self.options.per_layer else "mlp" for i in range(architecture["depth"])]
        return [max(1, round(architecture[name] * architecture["hidden"])) for name in names]

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """With p² · channels numbers in a patch, n patches, T = n + 1 states, h the hidden size and m neurons a layer:

        parameters (p² · channels + 1) h + h + T h, Σ 4 (h² + h) + 2 h m + m + h + 4 h over layers, and 2 h behind them;
        FLOPs 2 n p² · channels · h, and Σ 2 T (4 h² + 2 h m) + 4 T² h over layers.
        """
        o, hidden, patch = self.options, architecture["hidden"], architecture["patch"]
        patches, numbers = (o.image_size // patch) ** 2, patch**2 * o.channels
        states = patches + 1
        params = (numbers + 1) * hidden + hidden + states * hidden + 2 * hidden
        flops = 2 * patches * numbers * hidden
        for neurons in self.neurons(architecture):
            params += 4 * (hidden**2 + hidden) + 2 * hidden * neurons + neurons + hidden + 4 * hidden
            flops += 2 * states * (4 * hidden**2 + 2 * hidden * neurons) + 4 * states**2 * hidden
        return {"params": params, "flops": flops}

    def build(self, architecture: Architecture) -> nn.Module:
        from transformers import ViTConfig, ViTModel

        neurons = self.neurons(architecture)
        config = ViTConfig(
            image_size=self.options.image_size, num_channels=self.options.channels, patch_size=architecture["patch"],
            num_hidden_layers=len(neurons), hidden_size=architecture["hidden"],
            num_attention_heads=architecture["heads"], intermediate_size=max(neurons),
        )  # fmt: skip
        # Without the pooler, whose parameters would serve nobody.
        return narrowed(ViTModel(config, add_pooling_layer=False), neurons)

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """A standard folder that ``AutoModel.from_pretrained`` loads with transformers alone.

        A ViT of transformers has one width in all layers: neurons that a layer does not have are stored as zeros, which
        gives the same outputs. :meth:`load` cuts them out again.
        """
        from search_spaces.slicing import grown

        neurons = [up.out_features for up, _ in feed_forwards(model)]
        uniform = copy.deepcopy(model)
        for up, down in feed_forwards(uniform):
            up.weight, up.bias = grown(up.weight, 0, max(neurons)), grown(up.bias, 0, max(neurons))
            down.weight = grown(down.weight, 1, max(neurons))
        setattr(uniform.config, NEURONS, neurons)
        uniform.save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        from transformers import ViTModel

        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        neurons = described.get(NEURONS) if isinstance(described, dict) else None
        if neurons is None:
            return super().load(folder)
        model = ViTModel.from_pretrained(folder, add_pooling_layer=False)
        widest = model.config.intermediate_size
        if not isinstance(neurons, list) or not all(isinstance(n, int) and 1 <= n <= widest for n in neurons):
            raise ValueError(f"{NEURONS} in its config.json is {neurons!r}; expected a number for each layer")
        return narrowed(model, neurons)


def feed_forwards(model: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    """The two projections of the feed-forward in every layer."""
    from nas_meta.models.adapters import roles, stack

    named = [(layer, roles(layer)) for layer in stack(model)[1]]
    return [(layer.get_submodule(names["up"]), layer.get_submodule(names["down"])) for layer, names in named]


def narrowed(model: nn.Module, neurons: Sequence[int]) -> nn.Module:
    """The model with so many neurons left in each layer, the first ones; in place."""
    import torch

    from search_spaces.slicing import keep_columns, keep_rows

    for (up, down), count in zip(feed_forwards(model), neurons, strict=True):
        if count < up.out_features:
            keep_rows(up, torch.arange(count))
            keep_columns(down, torch.arange(count))
    return model
