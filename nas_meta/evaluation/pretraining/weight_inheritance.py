"""Weights of one architecture as the start of another: by name, and where sizes differ their leading slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nas_meta.space.architecture import Architecture, Choice


@torch.no_grad()
def inherit(model: nn.Module, weights: Mapping[str, Tensor]) -> float:
    """Copies what a model shares with the weights of another, in place.

    Where a tensor of the same name and number of dimensions is smaller or larger, the leading part that both have is
    copied, as weight entanglement shares it (Chen et al. 2021, "AutoFormer", section 3.2); the rest keeps its initial
    values.

    Returns:
        The share of the model's numbers that were inherited.
    """
    copied = total = 0
    for name, tensor in model.state_dict().items():
        total += tensor.numel()
        other = weights.get(name)
        if other is None or other.ndim != tensor.ndim:
            continue
        common = tuple(slice(min(a, b)) for a, b in zip(tensor.shape, other.shape, strict=True))
        tensor[common].copy_(other[common])
        copied += other[common].numel()
    return copied / max(1, total)


def of_another_class(model: nn.Module, weights: Mapping[str, Tensor], table: str | None) -> dict[str, Tensor]:
    """The weights of a pretrained model under the names that a model of another class has for the same parts.

    Those are names that end alike, such as ``lm.model.layers.0...`` and ``layers.0...``, and the two tables of token
    embeddings.

    Args:
        table: the name of the pretrained model's table.
    """
    own = model.state_dict()
    found = {}
    for name in own:
        parts = name.split(".")
        match = next((end for i in range(len(parts)) if (end := ".".join(parts[i:])) in weights), None)
        if match is not None:
            found[name] = weights[match]
    ours = name_of_table(model)
    if ours is not None and table is not None:
        found.setdefault(ours, weights[table])
    return found


def name_of_table(model: nn.Module) -> str | None:
    """The name of a model's table of token embeddings."""
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        return None
    return next((name for name, p in model.named_parameters() if p is weight), None)


def nearest(architecture: Architecture, others: Sequence[Architecture], table: Mapping[str, Choice]) -> int | None:
    """The index of the architecture that differs least, of equals the first; None where there is none."""
    if not others:
        return None
    distances = [distance(architecture, other, table) for other in others]
    return distances.index(min(distances))


def distance(one: Architecture, other: Architecture, table: Mapping[str, Choice]) -> float:
    """The sum over choices of how far their values are apart, each from 0 to 1.

    Numbers are as far apart as their ranks among the values of the choice, other values 1, and so is a choice that only
    one of the two has.
    """
    return sum(
        _apart(one.values[name], other.values[name], table[name])
        if name in one.values and name in other.values
        else 1.0
        for name in {**one.values, **other.values}
    )


def _apart(a: object, b: object, choice: Choice) -> float:
    if a == b:
        return 0.0
    numbers = [v for v in choice.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) < len(choice.values):
        return 1.0
    ranks = sorted(numbers)
    return abs(ranks.index(a) - ranks.index(b)) / (len(ranks) - 1)
