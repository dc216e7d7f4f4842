"""Supernet of ``decoder-subnet``: all sub-networks of a causal language model in one model with shared weights.

The groups of every layer, the heads of each group and the neurons are reordered once by importance, so every
sub-network is a slice of the larger ones (Hou et al. 2020, "DynaBERT", section 2.1). The counterpart for encoders is
:mod:`search_spaces.pretrained.bert_elastic`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.func import functional_call
from transformers.modeling_layers import GradientCheckpointingLayer

from nas_meta import Architecture
from search_spaces.decoder_slicing import (
    attention_of,
    cuts_of,
    first_heads,
    layers_of,
    parts_of,
    replace_layers,
    slice_layer,
    widths_of,
)
from search_spaces.pretrained.bert_elastic import select_widths
from search_spaces.pretrained.causal_lm import CausalStates
from search_spaces.pretrained.elastic_model import ElasticModel


class ElasticDecoderLayer(GradientCheckpointingLayer):
    """A decoder layer that uses only its first groups, heads and neurons, or passes its input through.

    Args:
        layer: The pretrained layer; its heads and neurons are copied in the given orders.
        heads: Indices of all query heads, ``[groups, heads per group]``, the most important first in both dimensions.
        neurons: Indices of all neurons, the most important first.

    Attributes:
        full: Projections and sizes of the whole layer.
        kept: Whether the layer belongs to the selected sub-network; otherwise it passes its input through.
    """

    def __init__(self, layer: nn.Module, heads: np.ndarray, neurons: np.ndarray):
        super().__init__()
        self.layer = slice_layer(layer, heads, neurons)
        self.full = parts_of(self.layer)
        self.kept = True
        self.set_sub_network(*heads.shape, len(neurons))

    def set_sub_network(self, groups: int, heads: int, neurons: int) -> None:
        """Select how many groups, heads and neurons the following forward passes use.

        Args:
            groups: Number of key-value groups.
            heads: Number of query heads per group.
            neurons: Number of neurons.
        """
        names = {id(p): name for name, p in self.layer.named_parameters()}
        self._cuts: dict[str, tuple[int, Tensor]] = {}
        for cut in cuts_of(self.layer, first_heads(groups, heads, self.full.group_heads), np.arange(neurons)):
            self._cuts[names[id(cut.linear.weight)]] = (cut.dim, cut.units)
            if cut.outputs and cut.linear.bias is not None:
                self._cuts[names[id(cut.linear.bias)]] = (0, cut.units)
        # Sizes that modules store as attributes; they must agree with the shapes of the sliced weights.
        attention = attention_of(self.layer)
        self._sizes: list[tuple[nn.Module, str, int]] = [(attention, "num_key_value_groups", heads)]
        if hasattr(attention, "c_attn"):
            width = groups * self.full.head_size
            self._sizes = [(attention, "split_size", width), (attention.c_attn, "nf", 3 * width)]
            self._sizes.append((self.layer.mlp.c_fc, "nf", neurons))

    def forward(self, hidden_states: Tensor, *rest: Any, **named: Any) -> Tensor:
        """Compute the layer with slices of its parameters, or pass the input through.

        Args:
            hidden_states: ``[B, T, H]``.
            *rest: Passed to the layer unchanged.
            **named: Passed to the layer unchanged.

        Returns:
            Hidden states ``[B, T, H]``.
        """
        if not self.kept:
            return hidden_states
        whole = dict(self.layer.named_parameters())
        weights = {n: whole[n].index_select(dim, units.to(whole[n].device)) for n, (dim, units) in self._cuts.items()}
        before = [(module, name, getattr(module, name)) for module, name, _ in self._sizes]
        _set(self._sizes)
        try:
            return functional_call(self.layer, weights, (hidden_states, *rest), named)
        finally:
            _set(before)


def _set(attributes: list[tuple[nn.Module, str, int]]) -> None:
    """Set attributes of modules."""
    for module, name, value in attributes:
        setattr(module, name, value)


class ElasticDecoder(ElasticModel):
    """A pretrained causal language model whose layers and units can be switched off between forward passes.

    Args:
        model: The language model; not copied, and its layers are replaced.
        head_orders: For each layer the indices of its query heads, ``[groups, heads per group]``, the most important
            first in both dimensions.
        neuron_scores: Importance ``[layers, neurons]``.
    """

    def __init__(self, model: CausalStates, head_orders: list[np.ndarray], neuron_scores: np.ndarray):
        super().__init__(model)
        neurons = np.argsort(-neuron_scores, axis=1, kind="stable")
        elastic = [ElasticDecoderLayer(*parts) for parts in zip(layers_of(model), head_orders, neurons, strict=True)]
        replace_layers(model, elastic, range(len(elastic)))

    def select(self, architecture: Architecture) -> None:
        select_widths(layers_of(self.model), widths_of(architecture))

    def extract(self, architecture: Architecture) -> nn.Module:
        sources, widths = list(layers_of(self.model)), widths_of(architecture)
        sliced = [
            slice_layer(sources[i].layer, first_heads(groups, heads, sources[i].full.group_heads), np.arange(neurons))
            for i, (groups, heads, neurons) in widths.items()
        ]
        model = copy.deepcopy(self.model, {id(layer): layer for layer in sources})
        replace_layers(model, sliced, list(widths))
        return model
