"""Slicing of pretrained transformers: removes layers, heads and neurons, and loads what was exported.

With grouped-query attention (Ainslie et al. 2023, "GQA") several query heads share one key and value head; together
they form a group. A group is kept or removed as a whole, and all groups of a layer keep the same number of query heads,
because the attention of these models expects it. Without grouped-query attention a group is one head.

Where a model keeps its units is a row of :data:`nas_meta.models.families.FAMILIES`. Causal language models are wrapped
in :class:`search_spaces.pretrained.causal_lm.CausalStates`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from nas_meta.errors import ConfigError
from nas_meta.models.families import GROUP, HEAD, NEURON, Family, check_family, family_of
from search_spaces.pretrained.modeling_subnet import select_bias


@dataclass(frozen=True)
class LayerParts:
    """The projections of one layer and its sizes.

    Attributes:
        inward: Projections from states to heads and neurons, by role; see :class:`nas_meta.models.families.Family`.
        outward: Projection of the attention output. A query head owns ``head_size`` consecutive inputs.
        down: Second feed-forward projection. A neuron owns one input.
        head_size: Width of one head.
        groups: Number of key-value heads.
        group_heads: Number of query heads that share one key-value head.
        neurons: Number of feed-forward neurons.
    """

    inward: Mapping[str, nn.Module]
    outward: nn.Module
    down: nn.Module
    head_size: int
    groups: int
    group_heads: int
    neurons: int

    @property
    def heads(self) -> int:
        """Number of query heads of the layer."""
        return self.groups * self.group_heads


@dataclass(frozen=True)
class Cut:
    """The outputs, or the inputs, of one projection that belong to the kept units of its layer.

    Attributes:
        linear: The projection: a ``Linear``, or GPT-2's ``Conv1D``, whose weight is transposed.
        units: Indices of the outputs or inputs.
        outputs: Whether ``units`` are outputs of the projection rather than inputs.
    """

    linear: nn.Module
    units: torch.Tensor
    outputs: bool

    @property
    def dim(self) -> int:
        """Dimension of the weight that ``units`` index."""
        return int(self.outputs == isinstance(self.linear, Conv1D))

    def keep(self) -> None:
        """Remove all other outputs or inputs of the projection, in place."""
        units = self.units.to(self.linear.weight.device)
        self.linear.weight = nn.Parameter(self.linear.weight.detach().index_select(self.dim, units))
        if self.outputs and self.linear.bias is not None:
            self.linear.bias = nn.Parameter(self.linear.bias.detach()[units])
        if isinstance(self.linear, Conv1D):
            self.linear.nx, self.linear.nf = self.linear.weight.shape
        else:
            self.linear.out_features, self.linear.in_features = self.linear.weight.shape


def layers_of(model: nn.Module) -> nn.ModuleList:
    """Return the list of layers of a model.

    Args:
        model: An encoder of transformers, or a causal language model wrapped in ``CausalStates``.

    Returns:
        The module list itself, not a copy.

    Raises:
        ConfigError: The model belongs to none of the supported families.
    """
    causal = getattr(family_of(model.config), "causal", False)
    family = check_family(model.config, f"space.model is a {type(model).__name__}", causal)
    return model.base_model.get_submodule(family.layers)


def replace_layers(model: nn.Module, layers: Sequence[nn.Module], kept: Sequence[int]) -> None:
    """Replace the layers of a model in place and update its config.

    Args:
        model: A model of a supported family.
        layers: The new layers, in order.
        kept: For each new layer the index of the old layer that it comes from.
    """
    family = family_of(model.config)
    assert family is not None
    for number, layer in enumerate(layers):
        inner = getattr(layer, "layer", layer)  # inside an elastic layer
        for module in (inner, inner.get_submodule(family.attention)):
            if hasattr(module, "layer_idx"):
                module.layer_idx = number  # index into the key-value cache
    parent, _, name = family.layers.rpartition(".")
    setattr(model.base_model.get_submodule(parent), name, nn.ModuleList(layers))
    layer_types = getattr(model.config, "layer_types", None)
    model.config.num_hidden_layers = len(layers)
    if layer_types is not None:
        model.config.layer_types = [layer_types[i] for i in kept]


def parts_of(layer: nn.Module, family: Family) -> LayerParts:
    """Return the projections and the sizes of a layer.

    Args:
        layer: A layer, whole or sliced.
        family: Family of its model.

    Returns:
        The projections, not copied, and the sizes.

    Raises:
        ConfigError: The layer lacks what layers of the family have.
    """
    try:
        inward = {role: m for role, p in family.inward.items() if (m := _submodule(layer, p.path)) is not None}
        outward, down = layer.get_submodule(family.outward), layer.get_submodule(family.down)
        size = attribute(layer, family.head_size)
    except AttributeError as error:
        raise ConfigError(f"space.model has layers of an unknown layout, {type(layer).__name__} ({error})") from error
    heads = features(outward)[0] // size
    groups = features(inward["key"])[1] // size if "key" in inward else heads
    return LayerParts(inward, outward, down, size, groups, heads // groups, features(down)[0])


def cuts_of(layer: nn.Module, family: Family, heads: np.ndarray, neurons: np.ndarray) -> list[Cut]:
    """Return the outputs and inputs of each projection that belong to the given units of a layer.

    Args:
        layer: A layer.
        family: Family of its model.
        heads: Query heads to keep, ``[groups, heads per group]``. The heads of a row share a key-value head.
        neurons: Feed-forward neurons to keep, ``[neurons]``.

    Returns:
        One cut per projection, those of outputs first.
    """
    parts = parts_of(layer, family)
    kept = {HEAD: heads.ravel(), GROUP: heads[:, 0] // parts.group_heads, NEURON: neurons}
    cuts = []
    for role, linear in parts.inward.items():
        p = family.inward[role]
        width = p.share * (1 if p.unit == NEURON else parts.head_size)
        rows = unit_rows(kept[p.unit], width, features(linear)[1] // p.blocks, p.blocks)
        cuts.append(Cut(linear, rows, outputs=True))
    cuts.append(Cut(parts.outward, unit_rows(kept[HEAD], parts.head_size), outputs=False))
    return [*cuts, Cut(parts.down, unit_rows(neurons, 1), outputs=False)]


def unit_rows(units: np.ndarray, width: int, block: int = 0, blocks: int = 1) -> torch.Tensor:
    """Return the outputs of a projection that belong to the given units.

    With width 2, the units ``[0, 3]`` own the outputs ``[0, 1, 6, 7]``; with two blocks of 8 outputs they own
    ``[0, 1, 6, 7, 8, 9, 14, 15]``.

    Args:
        units: Indices of the units, ``[units]``.
        width: Consecutive outputs of a unit in a block.
        block: Number of outputs in a block; unused with one block.
        blocks: Number of blocks.

    Returns:
        Indices ``[blocks * units * width]``.
    """
    starts = np.arange(blocks)[:, None, None] * block + units[:, None] * width
    return torch.from_numpy((starts + np.arange(width)).ravel())


def unit_sizes(family: Family, parts: LayerParts, groups: int, heads: int, neurons: int) -> dict[str, int]:
    """Return the attributes that must agree with the numbers of units in a layer.

    Args:
        family: Family of the model.
        parts: Projections of the layer.
        groups: Number of key-value heads.
        heads: Number of query heads per group.
        neurons: Number of feed-forward neurons.

    Returns:
        Values by the path of the attribute in the layer.
    """
    total = groups * heads
    values = {"heads": total, "width": total * parts.head_size, "group_heads": heads, "neurons": neurons}
    return {path: values[what] for path, what in family.sizes.items()}


def slice_layer(layer: nn.Module, family: Family, heads: np.ndarray, neurons: np.ndarray) -> nn.Module:
    """Return a copy of a layer with only the given heads and neurons.

    Args:
        layer: The layer to slice; it is not changed.
        family: Family of its model.
        heads: Query heads to keep, ``[groups, heads per group]``, in their new order.
        neurons: Feed-forward neurons to keep, ``[neurons]``, in their new order.

    Returns:
        A smaller layer with copied weights.
    """
    layer = copy.deepcopy(layer)
    parts = parts_of(layer, family)
    before = bias_heads(layer, family) if family.head_bias is not None else []
    for cut in cuts_of(layer, family, heads, neurons):
        cut.keep()
    for path, value in unit_sizes(family, parts, *heads.shape, len(neurons)).items():
        module, _, name = path.rpartition(".")
        setattr(layer.get_submodule(module), name, value)
    if family.head_bias is not None:
        select_bias(layer.get_submodule(family.attention), family.head_bias, [before[i] for i in heads.ravel()])
    return layer


def bias_heads(layer: nn.Module, family: Family) -> list[int]:
    """Return which heads of the bias that all layers share belong to the heads of a layer.

    Args:
        layer: A layer, whole or sliced.
        family: Family of its model, with a ``head_bias``.

    Returns:
        An index for each head of the layer.
    """
    attention = layer.get_submodule(family.attention)
    return getattr(attention, "nas_meta_bias", (None, list(range(parts_of(layer, family).heads))))[1]


def widths(model: nn.Module) -> list[tuple[int, int, int]]:
    """Return the sizes of every layer.

    Args:
        model: A model of a supported family, whole or sliced.

    Returns:
        One triple ``(groups, heads per group, neurons)`` per layer.
    """
    family, layers = family_of(model.config), layers_of(model)
    assert family is not None
    return [(p.groups, p.group_heads, p.neurons) for p in (parts_of(layer, family) for layer in layers)]


def first_heads(groups: int, heads: int, of: int) -> np.ndarray:
    """Return the indices of the first heads of the first groups.

    With four heads per group, the first two heads of the first two groups are ``[[0, 1], [4, 5]]``.

    Args:
        groups: Number of groups.
        heads: Number of heads per group.
        of: Number of heads that each group has in the layer.

    Returns:
        Head indices ``[groups, heads]``.
    """
    return np.arange(groups)[:, None] * of + np.arange(heads)


def without_padding(model: nn.Module, sizes: Sequence[Sequence[int]]) -> nn.Module:
    """Remove the zero-padded units of a model that an earlier version exported, in place.

    Args:
        model: A padded model.
        sizes: For each layer ``(heads, neurons)``, or ``(groups, heads per group, neurons)``.

    Returns:
        The same model.
    """
    family, layers = family_of(model.config), layers_of(model)
    assert family is not None
    sliced = []
    for layer, size in zip(layers, sizes, strict=True):
        groups, heads, neurons = size if len(size) == 3 else (size[0], 1, size[1])
        of = parts_of(layer, family).group_heads
        sliced.append(slice_layer(layer, family, first_heads(groups, heads, of), np.arange(neurons)))
    replace_layers(model, sliced, range(len(sliced)))
    return model


def grown(tensor: torch.Tensor, dim: int, size: int) -> nn.Parameter:
    """Return a tensor padded with zeros at the end of one dimension.

    Args:
        tensor: The tensor to pad; it is not changed.
        dim: Dimension to pad.
        size: Size of that dimension after padding; at least its current size.

    Returns:
        A new parameter.
    """
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return nn.Parameter(torch.cat([tensor.detach(), tensor.new_zeros(shape)], dim))


def load_sliced(folder: str | Path) -> nn.Module:
    """Load an exported encoder in its true size, whichever version of nas-meta exported it.

    Args:
        folder: An exported folder, or the folder of any encoder. No code in it is run.

    Returns:
        The encoder in evaluation mode.
    """
    from search_spaces.pretrained.subnet_folder import load_subnet

    return load_subnet(folder)


def attribute(module: nn.Module, path: str) -> Any:
    """Return the attribute of a submodule.

    Args:
        module: A module.
        path: Path such as ``attention.self.num_attention_heads``.
    """
    parent, _, name = path.rpartition(".")
    return getattr(module.get_submodule(parent), name)


def features(linear: nn.Module) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a projection.

    Args:
        linear: A ``Linear`` or a ``Conv1D``.
    """
    shape = tuple(linear.weight.shape)
    return (shape[0], shape[1]) if isinstance(linear, Conv1D) else (shape[1], shape[0])


def _submodule(layer: nn.Module, path: str) -> nn.Module | None:
    """Return a submodule, or None if the layer does not have it."""
    try:
        return layer.get_submodule(path)
    except AttributeError:
        return None
