"""Supernet of ``bert-subnet``: all sub-networks of a BERT-family encoder in one model with shared weights.

The heads and neurons of every layer are reordered once by importance. The k most important units are then the first k,
so every sub-network is a slice of the larger ones (Hou et al. 2020, "DynaBERT", section 2.1).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.func import functional_call
from transformers.modeling_layers import GradientCheckpointingLayer

from nas_meta import Architecture
from search_spaces.pretrained.elastic_model import ElasticModel
from search_spaces.slicing import layers_of, parts_of, replace_layers, slice_layer

CACHE_BYTES = 512 * 2**20  # limit for cached hidden states

Widths = dict[int, tuple[int, int]]


def widths_of(architecture: Architecture) -> Widths:
    """Return the sizes of the layers that an architecture keeps.

    Args:
        architecture: An architecture of ``bert-subnet``.

    Returns:
        ``(heads, neurons)`` by the index of the pretrained layer.
    """
    layers = [
        name.removesuffix(".keep") for name, value in architecture.values.items() if name.endswith(".keep") and value
    ]
    return {int(n.removeprefix("layer")): (architecture[f"{n}.heads"], architecture[f"{n}.ffn"]) for n in layers}


class ElasticLayer(GradientCheckpointingLayer):
    """An encoder layer that uses only its first heads and neurons, or passes its input through.

    Args:
        layer: The pretrained layer; its heads and neurons are copied in the given orders.
        heads: Indices of all heads, the most important first.
        neurons: Indices of all neurons, the most important first.

    Attributes:
        kept: Whether the layer belongs to the selected sub-network; otherwise it passes its input through.
        cache: Cache of hidden states shared with other sub-networks, or None.
        size: Selected numbers of heads and of neurons.
    """

    def __init__(self, layer: nn.Module, heads: np.ndarray, neurons: np.ndarray):
        super().__init__()
        self.layer = slice_layer(layer, heads, neurons)
        self.kept = True
        self.cache: StateCache | None = None
        self.set_sub_network(len(heads), len(neurons))

    def set_sub_network(self, heads: int, neurons: int) -> None:
        """Select how many heads and neurons the following forward passes use.

        Args:
            heads: Number of heads.
            neurons: Number of neurons.
        """
        parts = parts_of(self.layer)
        rows, neuron_rows = slice(heads * parts.head_size), slice(neurons)
        cuts: dict[int, Any] = {id(p): rows for linear in parts.inward for p in linear.parameters()}
        cuts |= {id(p): neuron_rows for p in parts.up.parameters()}
        cuts |= {id(parts.outward.weight): (slice(None), rows), id(parts.down.weight): (slice(None), neuron_rows)}
        self.size = (heads, neurons)
        self._cuts = {name: cuts[id(p)] for name, p in self.layer.named_parameters() if id(p) in cuts}

    def forward(self, hidden_states: Tensor, *rest: Any, **named: Any) -> Tensor:
        """Compute the layer, look its output up in the cache, or pass the input through.

        Args:
            hidden_states: ``[B, T, H]``.
            *rest: Passed to the layer unchanged.
            **named: Passed to the layer unchanged.

        Returns:
            Hidden states ``[B, T, H]``.
        """
        if not self.kept:
            return hidden_states
        if self.cache is None:
            return self._compute(hidden_states, *rest, **named)
        return self.cache.state(lambda: self._compute(hidden_states, *rest, **named))

    def _compute(self, *arguments: Any, **named: Any) -> Tensor:
        """Compute the layer with slices of its parameters."""
        # Slices are views: nothing is copied, and gradients reach the active part of each weight.
        whole = dict(self.layer.named_parameters())
        sliced = {name: whole[name][cut] for name, cut in self._cuts.items()}
        return functional_call(self.layer, sliced, arguments, named)


class StateCache:
    """Prefix cache of hidden states, shared by sub-networks that begin with the same layers.

    The output of a layer depends only on the inputs and on the layers up to it with their sizes, so this path is the
    key. For example, after a sub-network with the layers (0, 4, 64), (1, 4, 64), written as (index, heads, neurons),
    one with the layers (0, 4, 64), (1, 2, 64) reuses the output of layer 0 for the same texts. Weights must not change
    while the cache is used. The least recently used states are removed first.

    Args:
        max_bytes: Limit for the size of all states, in bytes.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES):
        self.max_bytes, self.bytes = max_bytes, 0
        self.states: OrderedDict[tuple, Tensor] = OrderedDict()
        self._paths: list[tuple] = []  # keys of the layers that the current forward pass has yet to reach
        self._skipped, self._cached = 0, None

    def begin(self, inputs: tuple, layers: list[tuple[int, int, int]]) -> None:
        """Begin a forward pass.

        Args:
            inputs: Fingerprint of the model's inputs.
            layers: ``(index, heads, neurons)`` of every layer of the sub-network, in order.
        """
        self._paths = [(inputs, *layers[: i + 1]) for i in range(len(layers))]
        # Everything up to the last layer with a cached state is skipped.
        self._skipped = max((i for i, path in enumerate(self._paths, start=1) if path in self.states), default=0)
        if self._skipped:
            path = self._paths[self._skipped - 1]
            self._cached = self.states[path]
            self.states.move_to_end(path)

    def state(self, compute: Callable[[], Tensor]) -> Tensor:
        """Return the output of the next layer, from the cache or computed.

        All skipped layers return the output of the last skipped one, because no other is used.

        Args:
            compute: Computes the output of the layer.

        Returns:
            Hidden states ``[B, T, H]``.
        """
        path = self._paths.pop(0)
        if self._skipped:
            self._skipped -= 1
            return self._cached
        state = self.states[path] = compute()
        self.bytes += state.nbytes
        while self.bytes > self.max_bytes:
            self.bytes -= self.states.popitem(last=False)[1].nbytes
        return state


class ElasticEncoder(ElasticModel):
    """A pretrained encoder whose layers, heads and neurons can be switched off between forward passes.

    Args:
        model: A BERT, MiniLM, RoBERTa or DistilBERT; not copied, and its layers are replaced.
        head_scores: Importance ``[layers, heads]``.
        neuron_scores: Importance ``[layers, neurons]``.
    """

    def __init__(self, model: nn.Module, head_scores: np.ndarray, neuron_scores: np.ndarray):
        super().__init__(model)
        ranked = (np.argsort(-scores, axis=1, kind="stable") for scores in (head_scores, neuron_scores))
        replace_layers(model, [ElasticLayer(*parts) for parts in zip(layers_of(model), *ranked, strict=True)])
        self._cache: StateCache | None = None

    def select(self, architecture: Architecture) -> None:
        select_widths(layers_of(self.model), widths_of(architecture))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Any:
        if self._cache is not None:
            layers = [(i, *layer.size) for i, layer in enumerate(layers_of(self.model)) if layer.kept]
            self._cache.begin(fingerprint(input_ids, attention_mask, position_ids), layers)
        return super().forward(input_ids, attention_mask, position_ids)

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Share hidden states between sub-networks that begin with the same layers, inside a ``with`` block.

        Inside the block the weights must not change, gradients are not supported, and dropout must be off.
        """
        self._share(StateCache())
        try:
            yield
        finally:
            self._share(None)

    def extract(self, architecture: Architecture) -> nn.Module:
        sources = list(layers_of(self.model))
        sliced = [
            slice_layer(sources[i].layer, np.arange(heads), np.arange(neurons))
            for i, (heads, neurons) in widths_of(architecture).items()
        ]
        model = copy.deepcopy(self.model, {id(layer): layer for layer in sources})
        replace_layers(model, sliced)
        return model

    def _share(self, cache: StateCache | None) -> None:
        """Give all layers the same cache, or remove it."""
        self._cache = cache
        for layer in layers_of(self.model):
            layer.cache = cache


def select_widths(layers: Iterable[nn.Module], widths: Mapping[int, Sequence[int]]) -> None:
    """Select the sizes of elastic layers for the following forward passes.

    Args:
        layers: All elastic layers of a supernet.
        widths: Arguments of ``set_sub_network`` by the index of the layer; layers without an entry pass their input
            through.
    """
    for i, layer in enumerate(layers):
        layer.kept = i in widths
        if layer.kept:
            layer.set_sub_network(*widths[i])


def fingerprint(*inputs: Tensor | None) -> tuple:
    """Return a hashable key that identifies the inputs of a model.

    Args:
        *inputs: Input tensors; None for a missing one.

    Returns:
        Shape and hash of the values for every tensor.
    """
    return tuple(None if x is None else (*x.shape, hash(x.cpu().numpy().tobytes())) for x in inputs)
