"""Search space ``vit``: small vision transformers from scratch, built on the ViT of transformers."""

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

NEURONS = "nas_meta_neurons"  # key in the config of an exported model; lists the neurons of every layer


class ViTOptions(PluginOptions):
    """Options of the search space ``vit``: the images, and the values of each choice."""

    image_size: int = Field(8, ge=1, description="height and width of the images, in pixels")
    channels: int = Field(1, ge=1, description="channels of the images: 1 for greyscale, 3 for colour")
    patches: list[int] = Field(
        [2, 4],
        min_length=1,
        description="candidate side lengths of a patch, in pixels; each must divide image_size",
    )
    depths: list[int] = Field([1, 2, 3, 4], min_length=1, description="candidate numbers of layers")
    hidden: list[int] = Field([32, 64], min_length=1, description="candidate hidden sizes")
    heads: list[int] = Field(
        [2, 4],
        min_length=1,
        description="candidate numbers of attention heads; only divisors of the hidden size are used",
    )
    mlp: list[float] = Field(
        [1.0, 2.0, 4.0],
        min_length=1,
        description="candidate widths of the feed-forward, as multiples of the hidden size",
    )
    per_layer: bool = Field(
        True, description="whether each layer chooses its feed-forward width; otherwise all layers have the same width"
    )


class ViT(SearchSpace):
    """Vision transformers (Dosovitskiy et al. 2021) from scratch, built on the ViT of transformers.

    Args:
        options: Image size and values of the choices; the defaults of ``ViTOptions`` if None.

    Raises:
        ConfigError: An option has a value outside its range.
    """

    Options = ViTOptions
    modality = "image"
    from_scratch = True

    def __init__(self, options: ViTOptions | None = None):
        super().__init__(options)
        o = self.options
        self.image_shape = (o.channels, o.image_size, o.image_size)
        for name, is_valid, expected in (
            ("patches", lambda n: n >= 1 and o.image_size % n == 0, f"divisors of image_size, {o.image_size}"),
            ("depths", lambda n: n >= 1, "integers of at least 1"),
            ("hidden", lambda n: n >= 1, "integers of at least 1"),
            ("heads", lambda n: n >= 1, "integers of at least 1"),
            ("mlp", lambda multiple: multiple > 0, "multiples above 0"),
        ):
            wrong = [value for value in getattr(o, name) if not is_valid(value)]
            if wrong:
                raise ConfigError(f"space.{name} has {wrong[0]}; expected {expected}")

    def choices(self) -> Mapping[str, Choice | Sequence[int | float]]:
        o = self.options
        table = {"patch": o.patches, "depth": o.depths, "hidden": o.hidden, "heads": o.heads}
        if not o.per_layer:
            return {**table, "mlp": o.mlp}
        # Layer i has a width only in models that are deeper than i.
        depths_above = [tuple(depth for depth in o.depths if depth > i) for i in range(max(o.depths))]
        return table | {f"layer{i}.mlp": Choice(o.mlp, when={"depth": above}) for i, above in enumerate(depths_above)}

    def problem(self, architecture: Architecture) -> str | None:
        hidden, heads = architecture["hidden"], architecture["heads"]
        return f"{heads} heads do not divide the hidden size {hidden}" if hidden % heads else None

    def size(self) -> int:
        """Return the exact number of architectures.

        It is (pairs of a hidden size and heads that divide it) · patches · Σ_d widths^d over the depths d, or
        Σ_d widths if all layers have the same width.
        """
        o = self.options
        pairs = sum(1 for hidden in o.hidden for heads in o.heads if hidden % heads == 0)
        widths = len(o.mlp)
        return pairs * len(o.patches) * sum(widths**depth if o.per_layer else widths for depth in o.depths)

    def width(self, architecture: Architecture) -> int:
        """Return the width of an embedding.

        Args:
            architecture: An architecture of the space.

        Returns:
            The hidden size.
        """
        return architecture["hidden"]

    def neurons(self, architecture: Architecture) -> list[int]:
        """Return the number of feed-forward neurons of each layer.

        Args:
            architecture: An architecture of the space.

        Returns:
            Numbers of neurons, each at least 1.
        """
        names = [f"layer{i}.mlp" if self.options.per_layer else "mlp" for i in range(architecture["depth"])]
        return [max(1, round(architecture[name] * architecture["hidden"])) for name in names]

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Count parameters and FLOPs from the sizes alone.

        With P = patch² · channels values per patch, n patches, T = n + 1 states, hidden size h and m neurons per layer:

        - Parameters are (P + 1) h + h + T h for the embeddings, Σ 4 (h² + h) + 2 h m + m + h + 4 h over the layers, and
          2 h for the final LayerNorm.
        - FLOPs are 2 n P h for the patches and Σ 2 T (4 h² + 2 h m) + 4 T² h over the layers.
        """
        o, hidden, patch = self.options, architecture["hidden"], architecture["patch"]
        patches, patch_values = (o.image_size // patch) ** 2, patch**2 * o.channels
        states = patches + 1
        params = (patch_values + 1) * hidden + hidden + states * hidden + 2 * hidden
        flops = 2 * patches * patch_values * hidden
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
        # Without the pooler, whose parameters would be unused.
        return narrow_layers(ViTModel(config, add_pooling_layer=False), neurons)

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Write a standard folder that ``AutoModel.from_pretrained`` loads without nas-meta.

        A ViT of transformers has the same width in all layers, so missing neurons are stored as zeros, which give the
        same outputs. :meth:`load` removes them again.
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

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        neurons = config.get(NEURONS) if isinstance(config, dict) else None
        if neurons is None:
            return super().load(folder)
        model = ViTModel.from_pretrained(folder, add_pooling_layer=False)
        widest = model.config.intermediate_size
        if not isinstance(neurons, list) or not all(isinstance(n, int) and 1 <= n <= widest for n in neurons):
            raise ValueError(
                f"{NEURONS} in its config.json is {neurons!r}; expected one integer per layer, from 1 to {widest}"
            )
        return narrow_layers(model, neurons)


def feed_forwards(model: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    """Return the two feed-forward projections of every layer.

    Args:
        model: A vision transformer.

    Returns:
        One pair ``(up, down)`` per layer.
    """
    from nas_meta.models.adapters import roles, stack

    named = [(layer, roles(layer)) for layer in stack(model)[1]]
    return [(layer.get_submodule(names["up"]), layer.get_submodule(names["down"])) for layer, names in named]


def narrow_layers(model: nn.Module, neurons: Sequence[int]) -> nn.Module:
    """Keep the first feed-forward neurons of each layer, in place.

    Args:
        model: A vision transformer.
        neurons: Number of neurons to keep in each layer.

    Returns:
        The same model.
    """
    import torch

    from search_spaces.slicing import Cut

    for (up, down), count in zip(feed_forwards(model), neurons, strict=True):
        if count < up.out_features:
            Cut(up, torch.arange(count), outputs=True).keep()
            Cut(down, torch.arange(count), outputs=False).keep()
    return model
