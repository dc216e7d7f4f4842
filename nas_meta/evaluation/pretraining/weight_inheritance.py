"""Start one architecture from the weights of another: tensors match by name, and different sizes by leading slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nas_meta.space.architecture import Architecture, Choice


@torch.no_grad()
def inherit(model: nn.Module, weights: Mapping[str, Tensor]) -> float:
    """Copy the tensors of a donor that have the same name and number of dimensions into a model.

    If their sizes differ, the leading slice that both have is copied, as in weight entanglement (Chen et al. 2021,
    "AutoFormer", section 3.2); the rest keeps its initial values.

    Args:
        model: The model that inherits, in place.
        weights: Tensors of the donor by name.

    Returns:
        The share of the model's weights that were copied, from 0 to 1.
    """
    copied = total = 0
    for name, tensor in model.state_dict().items():
        total += tensor.numel()
        donor = weights.get(name)
        if donor is None or donor.ndim != tensor.ndim:
            continue
        common = tuple(slice(min(a, b)) for a, b in zip(tensor.shape, donor.shape, strict=True))
        tensor[common].copy_(donor[common])
        copied += donor[common].numel()
    return copied / max(1, total)


def match_names(model: nn.Module, weights: Mapping[str, Tensor], table: str | None) -> dict[str, Tensor]:
    """Return pretrained weights under the names that a model of another class gives to the same parts.

    A name of the model matches the longest of its suffixes that is a name of the pretrained model:
    ``lm.model.layers.0.norm.weight`` matches ``layers.0.norm.weight``. The token embeddings of the two models match
    whatever their names.

    Args:
        model: The model whose names are used.
        weights: Tensors of the pretrained model by name.
        table: Name of the token embeddings in ``weights``; None if unknown.

    Returns:
        The matching tensors by the model's names.
    """
    matched = {}
    for name in model.state_dict():
        parts = name.split(".")
        match = next((end for i in range(len(parts)) if (end := ".".join(parts[i:])) in weights), None)
        if match is not None:
            matched[name] = weights[match]
    model_table = name_of_table(model)
    if model_table is not None and table is not None:
        matched.setdefault(model_table, weights[table])
    return matched


def name_of_table(model: nn.Module) -> str | None:
    """Return the name of a model's token embeddings.

    Args:
        model: A model, with or without ``get_input_embeddings()``.

    Returns:
        The name of the parameter; None if the model does not name its embeddings.
    """
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        return None
    return next((name for name, p in model.named_parameters() if p is weight), None)


def nearest(architecture: Architecture, others: Sequence[Architecture], table: Mapping[str, Choice]) -> int | None:
    """Find the architecture with the smallest :func:`distance`.

    Args:
        architecture: The architecture to compare with.
        others: The architectures to choose from.
        table: The choices of the search space by name.

    Returns:
        An index into ``others``, the first one for equal distances; None if ``others`` is empty.
    """
    if not others:
        return None
    distances = [distance(architecture, other, table) for other in others]
    return distances.index(min(distances))


def distance(one: Architecture, other: Architecture, table: Mapping[str, Choice]) -> float:
    """Return the distance of two architectures: the sum of the distances of their choices, each from 0 to 1.

    Numbers differ by their ranks among the values of the choice: for the values 64, 128 and 512, the distance of 64 and
    128 is 1/2. Other values that differ have distance 1, and so does a choice that only one of the two has.

    Args:
        one: An architecture.
        other: Another architecture of the same search space.
        table: The choices of the search space by name.

    Returns:
        A number from 0 to the number of choices.
    """
    return sum(
        _value_distance(one.values[name], other.values[name], table[name])
        if name in one.values and name in other.values
        else 1.0
        for name in {**one.values, **other.values}
    )


def _value_distance(a: object, b: object, choice: Choice) -> float:
    if a == b:
        return 0.0
    numbers = [v for v in choice.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    if len(numbers) < len(choice.values):
        return 1.0
    ranks = sorted(numbers)
    return abs(ranks.index(a) - ranks.index(b)) / (len(ranks) - 1)
