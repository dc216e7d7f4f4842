"""All sub-networks of a causal language model in one model: :mod:`search_spaces.pretrained.bert_elastic` for decoders.

The groups of every layer, the heads within each and the neurons are put in the order of their importance once, so that
every sub-network is a slice of the larger ones (Hou et al. 2020, "DynaBERT", section 2.1).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.func import functional_call
from transformers.modeling_layers import GradientCheckpointingLayer

from nas_meta import Architecture, Supernet
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


class ElasticDecoderLayer(GradientCheckpointingLayer):
    """A decoder layer that computes with its first groups, heads and neurons alone, or hands its input on.

    Args:
        layer: its heads and neurons are copied in the given orders.
        heads: ``[groups, heads of a group]``, all of them, the most important first in both dimensions.
        neurons: every neuron, likewise.
    """

    def __init__(self, layer: nn.Module, heads: np.ndarray, neurons: np.ndarray):
        super().__init__()
        self.layer = slice_layer(layer, heads, neurons)
        self.full = parts_of(self.layer)
        self.kept = True
        self.set_sub_network(*heads.shape, len(neurons))

    def set_sub_network(self, groups: int, heads: int, neurons: int) -> None:
        """From now on, computes with so many groups, heads of each and neurons."""
        names = {id(p): name for name, p in self.layer.named_parameters()}
        self._cuts: dict[str, tuple[int, Tensor]] = {}
        for cut in cuts_of(self.layer, first_heads(groups, heads, self.full.group_heads), np.arange(neurons)):
            self._cuts[names[id(cut.linear.weight)]] = (cut.dim, cut.units)
            if cut.outputs and cut.linear.bias is not None:
                self._cuts[names[id(cut.linear.bias)]] = (0, cut.units)
        # What the modules know of their sizes, beside the shapes of their weights.
        attention = attention_of(self.layer)
        self._known: list[tuple[nn.Module, str, int]] = [(attention, "num_key_value_groups", heads)]
        if hasattr(attention, "c_attn"):
            width = groups * self.full.head_size
            self._known = [(attention, "split_size", width), (attention.c_attn, "nf", 3 * width)]
            self._known.append((self.layer.mlp.c_fc, "nf", neurons))

    def forward(self, hidden_states: Tensor, *rest: Any, **named: Any) -> Tensor:
        """Hidden states ``[B, T, H]`` to ``[B, T, H]``; other arguments go to the layer as they are."""
        if not self.kept:
            return hidden_states
        own = dict(self.layer.named_parameters())
        weights = {n: own[n].index_select(dim, units.to(own[n].device)) for n, (dim, units) in self._cuts.items()}
        before = [(module, name, getattr(module, name)) for module, name, _ in self._known]
        _set(self._known)
        try:
            return functional_call(self.layer, weights, (hidden_states, *rest), named)
        finally:
            _set(before)


def _set(attributes: list[tuple[nn.Module, str, int]]) -> None:
    for module, name, value in attributes:
        setattr(module, name, value)


class ElasticDecoder(Supernet):
    """A pretrained causal language model whose layers, groups, heads and neurons can be left out of a forward pass.

    Args:
        model: taken over, its layers are replaced.
        head_orders: of each layer ``[groups, heads of a group]``, the most important first in both dimensions.
        neuron_scores: importance ``[layers, neurons]``.
    """

    def __init__(self, model: CausalStates, head_orders: list[np.ndarray], neuron_scores: np.ndarray):
        super().__init__()
        neurons = np.argsort(-neuron_scores, axis=1, kind="stable")
        elastic = [ElasticDecoderLayer(*parts) for parts in zip(layers_of(model), head_orders, neurons, strict=True)]
        replace_layers(model, elastic, range(len(elastic)))
        self.model = model

    @property
    def config(self) -> Any:
        """The model's own."""
        return self.model.config

    def select(self, architecture: Architecture) -> None:
        select_widths(layers_of(self.model), widths_of(architecture))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Any:
        """Shapes as in :meth:`SearchSpace.build`; packed rows bring a mask ``[B, 1, T, T]`` and their positions."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)

    def extract(self, architecture: Architecture) -> nn.Module:
        sources, widths = list(layers_of(self.model)), widths_of(architecture)
        cut = [
            slice_layer(sources[i].layer, first_heads(groups, heads, sources[i].full.group_heads), np.arange(neurons))
            for i, (groups, heads, neurons) in widths.items()
        ]
        model = copy.deepcopy(self.model, {id(layer): layer for layer in sources})
        replace_layers(model, cut, list(widths))
        return model
