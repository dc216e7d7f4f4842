"""Supernets of pretrained models: all sub-networks of a model in one model with shared weights.

The groups of every layer, the heads of each group and the neurons are reordered once by importance. The k most
important units are then the first k, so every sub-network is a slice of the larger ones (Hou et al. 2020, "DynaBERT",
section 2.1).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from nas_meta import Architecture, Supernet
from nas_meta.models.families import Family, family_of
from search_spaces.slicing import (
    bias_heads,
    cuts_of,
    first_heads,
    layers_of,
    parts_of,
    replace_layers,
    slice_layer,
    unit_sizes,
)

CACHE_BYTES = 512 * 2**20  # limit for cached hidden states

Widths = Mapping[int, tuple[int, int, int]]
"""``(groups, heads per group, neurons)`` of the kept layers, by the index of the pretrained layer."""


class ElasticLayer(GradientCheckpointingLayer):
    """A layer that uses only its first groups, heads and neurons, or passes its input through.

    Attributes that the model reads from a layer, such as its kind of attention, are those of the pretrained layer.

    Args:
        layer: The pretrained layer; its heads and neurons are copied in the given orders.
        family: Family of its model.
        heads: Indices of all query heads, ``[groups, heads per group]``, the most important first in both dimensions.
        neurons: Indices of all neurons, the most important first.

    Attributes:
        full: Projections and sizes of the whole layer.
        kept: Whether the layer belongs to the selected sub-network; otherwise it passes its input through.
        cache: Cache of hidden states shared with other sub-networks, or None.
        size: Selected numbers of groups, of heads per group, and of neurons.
    """

    def __init__(self, layer: nn.Module, family: Family, heads: np.ndarray, neurons: np.ndarray):
        super().__init__()
        self.layer, self.family = slice_layer(layer, family, heads, neurons), family
        self.full = parts_of(self.layer, family)
        self.kept = True
        self.cache: StateCache | None = None
        self.set_sub_network(*heads.shape, len(neurons))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "layer":
                raise
            return getattr(self.layer, name)

    def set_sub_network(self, groups: int, heads: int, neurons: int) -> None:
        """Select how many groups, heads and neurons the following forward passes use.

        Args:
            groups: Number of key-value groups.
            heads: Number of query heads per group.
            neurons: Number of neurons.
        """
        self.size = (groups, heads, neurons)
        names = {id(p): name for name, p in self.layer.named_parameters()}
        first = first_heads(groups, heads, self.full.group_heads)
        self._cuts: dict[str, tuple[int, slice | Tensor]] = {}
        # Sizes that modules store as attributes; they must agree with the shapes of the sliced weights.
        self._sizes: list[tuple[nn.Module, str, Any]] = []
        for cut in cuts_of(self.layer, self.family, first, np.arange(neurons)):
            units = _as_slice(cut.units)
            self._cuts[names[id(cut.linear.weight)]] = (cut.dim, units)
            if cut.outputs and cut.linear.bias is not None:
                self._cuts[names[id(cut.linear.bias)]] = (0, units)
            if cut.outputs and isinstance(cut.linear, Conv1D):
                self._sizes.append((cut.linear, "nf", len(cut.units)))
        for path, value in unit_sizes(self.family, self.full, groups, heads, neurons).items():
            module, _, name = path.rpartition(".")
            self._sizes.append((self.layer.get_submodule(module), name, value))
        if self.family.head_bias is not None:
            order = bias_heads(self.layer, self.family)
            bias = (self.family.head_bias, [order[i] for i in first.ravel()])
            self._sizes.append((self.layer.get_submodule(self.family.attention), "nas_meta_bias", bias))

    def forward(self, hidden_states: Tensor, *rest: Any, **named: Any) -> Any:
        """Compute the layer, look its output up in the cache, or pass the input through.

        Args:
            hidden_states: ``[B, T, H]``.
            *rest: Passed to the layer unchanged.
            **named: Passed to the layer unchanged.

        Returns:
            Hidden states ``[B, T, H]``, in a tuple if layers of the family return one.
        """
        if not self.kept:
            return (hidden_states, None) if self.family.returns_tuple else hidden_states
        if self.cache is None:
            return self._compute(hidden_states, *rest, **named)
        if not self.family.returns_tuple:
            return self.cache.state(lambda: self._compute(hidden_states, *rest, **named))
        return self.cache.state(lambda: self._compute(hidden_states, *rest, **named)[0]), None

    def _compute(self, *arguments: Any, **named: Any) -> Any:
        """Compute the layer with slices of its parameters."""
        # Slices are views where they can be: little is copied, and gradients reach the active part of each weight.
        whole = dict(self.layer.named_parameters())
        sliced = {name: _sliced(whole[name], dim, units) for name, (dim, units) in self._cuts.items()}
        before = [(module, name, getattr(module, name)) for module, name, _ in self._sizes]
        _set(self._sizes)
        try:
            return functional_call(self.layer, sliced, arguments, named)
        finally:
            _set(before)


def _as_slice(units: Tensor) -> slice | Tensor:
    """Return indices as a slice if they are the first ones."""
    return slice(len(units)) if torch.equal(units, torch.arange(len(units))) else units


def _sliced(weight: Tensor, dim: int, units: slice | Tensor) -> Tensor:
    """Return the given rows (``dim`` 0) or columns of a weight."""
    if isinstance(units, slice):
        return weight[units] if dim == 0 else weight[:, units]
    return weight.index_select(dim, units.to(weight.device))


def _set(attributes: Sequence[tuple[nn.Module, str, Any]]) -> None:
    """Set attributes of modules, where they differ."""
    for module, name, value in attributes:
        if getattr(module, name) != value:
            setattr(module, name, value)


class StateCache:
    """Prefix cache of hidden states, shared by sub-networks that begin with the same layers.

    The output of a layer depends only on the inputs and on the layers up to it with their sizes, so this path is the
    key. For example, after a sub-network with the layers (0, 4, 1, 64), (1, 4, 1, 64), written as (index, groups, heads
    per group, neurons), one with the layers (0, 4, 1, 64), (1, 2, 1, 64) reuses the output of layer 0 for the same
    texts. Weights must not change while the cache is used. The least recently used states are removed first.

    Args:
        max_bytes: Limit for the size of all states, in bytes.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES):
        self.max_bytes, self.bytes = max_bytes, 0
        self.states: OrderedDict[tuple, Tensor] = OrderedDict()
        self._paths: list[tuple] = []  # keys of the layers that the current forward pass has yet to reach
        self._skipped, self._cached = 0, None

    def begin(self, inputs: tuple, layers: Sequence[tuple[int, ...]]) -> None:
        """Begin a forward pass.

        Args:
            inputs: Fingerprint of the model's inputs.
            layers: Index and sizes of every layer of the sub-network, in order.
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


class ElasticModel(Supernet):
    """A pretrained model whose layers, heads and neurons can be switched off between forward passes.

    Args:
        model: The model; not copied, and its layers are replaced.
        head_orders: For each layer the indices of its query heads, ``[groups, heads per group]``, the most important
            first in both dimensions.
        neuron_scores: Importance ``[layers, neurons]``.
    """

    def __init__(self, model: nn.Module, head_orders: Sequence[np.ndarray], neuron_scores: np.ndarray):
        super().__init__()
        self.model = model
        family = family_of(model.config)
        assert family is not None
        neurons = np.argsort(-neuron_scores, axis=1, kind="stable")
        units = zip(layers_of(model), head_orders, neurons, strict=True)
        elastic = [ElasticLayer(layer, family, heads, order) for layer, heads, order in units]
        replace_layers(model, elastic, range(len(elastic)))
        self._cache: StateCache | None = None

    @property
    def config(self) -> Any:
        """The transformers config of the model."""
        return self.model.config

    @abstractmethod
    def widths(self, architecture: Architecture) -> Widths:
        """Return the sizes of the layers that an architecture keeps.

        Args:
            architecture: An architecture of the space.
        """

    def select(self, architecture: Architecture) -> None:
        widths = self.widths(architecture)
        for i, layer in enumerate(layers_of(self.model)):
            layer.kept = i in widths
            if layer.kept:
                layer.set_sub_network(*widths[i])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Any:
        """Encode a batch of texts with the selected sub-network.

        Args:
            input_ids: Token ids ``[B, T]``.
            attention_mask: ``[B, T]``, 1 at tokens and 0 at padding; ``[B, 1, T, T]`` for packed texts.
            position_ids: ``[B, T]``, for packed texts.

        Returns:
            Output with token states ``[B, T, H]`` as ``last_hidden_state``.
        """
        if self._cache is not None:
            layers = [(i, *layer.size) for i, layer in enumerate(layers_of(self.model)) if layer.kept]
            self._cache.begin(fingerprint(input_ids, attention_mask, position_ids), layers)
        return self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)

    def extract(self, architecture: Architecture) -> nn.Module:
        sources, widths = list(layers_of(self.model)), self.widths(architecture)
        sliced = []
        for i, (groups, heads, neurons) in widths.items():
            first = first_heads(groups, heads, sources[i].full.group_heads)
            sliced.append(slice_layer(sources[i].layer, sources[i].family, first, np.arange(neurons)))
        model = copy.deepcopy(self.model, {id(layer): layer for layer in sources})
        replace_layers(model, sliced, list(widths))
        return model

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

    def _share(self, cache: StateCache | None) -> None:
        """Give all layers the same cache, or remove it."""
        self._cache = cache
        for layer in layers_of(self.model):
            layer.cache = cache


def fingerprint(*inputs: Tensor | None) -> tuple:
    """Return a hashable key that identifies the inputs of a model.

    Args:
        *inputs: Input tensors; None for a missing one.

    Returns:
        Shape and hash of the values for every tensor.
    """
    return tuple(None if x is None else (*x.shape, hash(x.cpu().numpy().tobytes())) for x in inputs)
