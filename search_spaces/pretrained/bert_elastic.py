"""Supernet of ``bert-subnet``: all sub-networks of an encoder in one model with shared weights."""

from __future__ import annotations

import numpy as np
from torch import nn

from nas_meta import Architecture
from search_spaces.pretrained.elastic_model import ElasticModel, Widths


def widths_of(architecture: Architecture) -> dict[int, tuple[int, int, int]]:
    """Return the sizes of the layers that an architecture keeps.

    Args:
        architecture: An architecture of ``bert-subnet``.

    Returns:
        ``(heads, 1, neurons)`` by the index of the pretrained layer, in order.
    """
    values = architecture.values
    layers = [int(n[len("layer") : -len(".keep")]) for n, value in values.items() if n.endswith(".keep") and value]
    return {i: (values[f"layer{i}.heads"], 1, values[f"layer{i}.ffn"]) for i in sorted(layers)}


class ElasticEncoder(ElasticModel):
    """A pretrained encoder whose layers, heads and neurons can be switched off between forward passes.

    Args:
        model: An encoder of a supported family; not copied, and its layers are replaced.
        head_scores: Importance ``[layers, heads]``.
        neuron_scores: Importance ``[layers, neurons]``.
    """

    def __init__(self, model: nn.Module, head_scores: np.ndarray, neuron_scores: np.ndarray):
        orders = [np.argsort(-scores, kind="stable")[:, None] for scores in head_scores]
        super().__init__(model, orders, neuron_scores)

    def widths(self, architecture: Architecture) -> Widths:
        return widths_of(architecture)
