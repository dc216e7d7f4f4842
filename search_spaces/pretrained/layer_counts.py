"""Parameters and FLOPs of sub-networks, from the shapes of the pretrained model, without building them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from nas_meta.models.families import GROUP, HEAD, NEURON, Family, family_of
from search_spaces.slicing import LayerParts, layers_of, parts_of

POOLER = "pooler"  # its projection is computed for the first token only


@dataclass(frozen=True)
class LayerCounts:
    """Counts of one layer.

    Attributes:
        fixed: Parameters that belong to no unit, such as norms.
        params: Parameters of one unit, by unit.
        matrices: Weights of one unit that multiply the state of every token, by unit.
        head_size: Width of a head.
        positions: Number of relative positions that a head scores beside the tokens; 0 in most families.
        position_weights: Weights of one head that multiply the embedding of every relative position.
        position_scores: How many kinds of scores with relative positions a head computes.
    """

    fixed: int
    params: Mapping[str, int]
    matrices: Mapping[str, int]
    head_size: int
    positions: int = 0
    position_weights: int = 0
    position_scores: int = 0

    def flops(self, units: Mapping[str, int], tokens: int) -> int:
        """Count FLOPs: 2 · tokens · (weights) + 4 · tokens² · (width of all heads), and those of relative positions.

        Args:
            units: Number of units of the layer, by unit.
            tokens: Number of tokens T.
        """
        products = sum(self.matrices[unit] * count for unit, count in units.items())
        scores = 2 * tokens**2 * self.head_size + self.position_scores * tokens * self.positions * self.head_size
        return 2 * (tokens * products + units[HEAD] * (scores + self.positions * self.position_weights))


@dataclass(frozen=True)
class ModelCounts:
    """Counts of a pretrained model, from which those of its sub-networks follow.

    Attributes:
        layers: Counts of its layers.
        params: Parameters outside of the layers.
        matrices: Weights outside of the layers that multiply the state of every token.
        pooler: Weights of the pooler, which multiply the state of the first token.
    """

    layers: Sequence[LayerCounts]
    params: int
    matrices: int
    pooler: int

    def count_params(self, widths: Mapping[int, tuple[int, int, int]]) -> int:
        """Count the parameters of a sub-network, embeddings included.

        Args:
            widths: ``(groups, heads per group, neurons)`` of the kept layers, by their index.
        """
        kept = ((self.layers[i], units_in(size)) for i, size in widths.items())
        return self.params + sum(c.fixed + sum(c.params[u] * n for u, n in units.items()) for c, units in kept)

    def count_flops(self, widths: Mapping[int, tuple[int, int, int]], tokens: int) -> int:
        """Count the FLOPs of one forward pass of one text, without an output layer.

        Args:
            widths: ``(groups, heads per group, neurons)`` of the kept layers, by their index.
            tokens: Number of tokens of the text.
        """
        outside = 2 * (tokens * self.matrices + self.pooler)
        return outside + sum(self.layers[i].flops(units_in(size), tokens) for i, size in widths.items())


def units_in(size: tuple[int, int, int]) -> dict[str, int]:
    """Return the number of units of a layer, by unit.

    Args:
        size: ``(groups, heads per group, neurons)``.
    """
    groups, heads, neurons = size
    return {HEAD: groups * heads, GROUP: groups, NEURON: neurons}


def counts_of(model: nn.Module) -> ModelCounts:
    """Return the counts of a pretrained model.

    Args:
        model: A whole model of a supported family.

    Returns:
        Its counts.
    """
    family, layers = family_of(model.config), layers_of(model)
    assert family is not None
    inside = {id(module) for layer in layers for module in layer.modules()}
    linears = {
        name: module.weight.numel() for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in inside
    }  # fmt: skip
    pooler = sum(size for name, size in linears.items() if name.partition(".")[0] == POOLER)
    total = sum(p.numel() for p in model.parameters())
    within = sum(p.numel() for p in layers.parameters())
    counts = [_counts_of_layer(layer, family) for layer in layers]
    return ModelCounts(counts, total - within, sum(linears.values()) - pooler, pooler)


def _counts_of_layer(layer: nn.Module, family: Family) -> LayerCounts:
    parts = parts_of(layer, family)
    totals = units_in((parts.groups, parts.group_heads, parts.neurons))
    params: Counter[str] = Counter(dict.fromkeys(totals, 0))
    matrices = Counter(params)
    for role, linear in parts.inward.items():
        projection = family.inward[role]
        params[projection.unit] += sum(p.numel() for p in linear.parameters()) // totals[projection.unit]
        if not projection.positions:
            matrices[projection.unit] += linear.weight.numel() // totals[projection.unit]
    for linear, unit in ((parts.outward, HEAD), (parts.down, NEURON)):  # their biases belong to no unit
        params[unit] += linear.weight.numel() // totals[unit]
        matrices[unit] += linear.weight.numel() // totals[unit]
    fixed = sum(p.numel() for p in layer.parameters()) - sum(params[u] * n for u, n in totals.items())
    return LayerCounts(fixed, params, matrices, parts.head_size, *_relative(layer, family, parts))


def _relative(layer: nn.Module, family: Family, parts: LayerParts) -> tuple[int, int, int]:
    """Relative positions, weights of a head for their embeddings, and kinds of scores (He et al. 2021, "DeBERTa")."""
    positions, roles = relative_positions(layer, family)
    if not positions:
        return 0, 0, 0
    weights = sum(parts.inward[role].weight.numel() for role in roles if role in parts.inward) // parts.heads
    kinds = {"c2p", "p2c"} & set(layer.get_submodule(family.relative or "").pos_att_type)
    return positions, weights, len(kinds)


def relative_positions(layer: nn.Module, family: Family | None) -> tuple[int, tuple[str, ...]]:
    """Return the number of relative positions of a layer and the roles of the projections of their embeddings.

    Args:
        layer: A layer.
        family: Family of its model, or None.

    Returns:
        0 and no roles in most families.
    """
    attention = layer.get_submodule(family.relative) if family is not None and family.relative is not None else None
    if attention is None or not attention.relative_attention:
        return 0, ()
    return 2 * attention.pos_ebd_size, ("query", "key") if attention.share_att_key else (
        "position_key", "position_query",
    )  # fmt: skip
