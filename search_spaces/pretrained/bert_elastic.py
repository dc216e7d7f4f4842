"""All sub-networks of a BERT-family encoder in one model.

The heads and neurons of every layer are put in the order of their importance once, so that the strongest k are the
first k and every sub-network is a slice of the larger ones (Hou et al. 2020, "DynaBERT", section 2.1).
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

from nas_meta import Architecture, Supernet
from search_spaces.slicing import layers_of, parts_of, replace_layers, slice_layer

SHARED_BYTES = 512 * 2**20  # of hidden states that are kept for other sub-networks

Widths = dict[int, tuple[int, int]]


def widths_of(architecture: Architecture) -> Widths:
    """Heads and neurons of the layers that an architecture of ``bert-subnet`` keeps, by their index."""
    kept = [
        name.removesuffix(".keep") for name, value in architecture.values.items() if name.endswith(".keep") and value
    ]
    return {int(n.removeprefix("layer")): (architecture[f"{n}.heads"], architecture[f"{n}.ffn"]) for n in kept}


class ElasticLayer(GradientCheckpointingLayer):
    """An encoder layer that computes with its first heads and neurons alone, or hands its input on.

    Args:
        layer: its heads and neurons are copied in the given orders.
        heads: every head, the most important first.
        neurons: every neuron, likewise.
    """

    def __init__(self, layer: nn.Module, heads: np.ndarray, neurons: np.ndarray):
        super().__init__()
        self.layer = slice_layer(layer, heads, neurons)
        self.kept = True
        self.memory: Memory | None = None
        self.set_sub_network(len(heads), len(neurons))

    def set_sub_network(self, heads: int, neurons: int) -> None:
        """From now on, computes with so many heads and neurons."""
        parts = parts_of(self.layer)
        rows, neuron_rows = slice(heads * parts.head_size), slice(neurons)
        cuts: dict[int, Any] = {id(p): rows for linear in parts.inward for p in linear.parameters()}
        cuts |= {id(p): neuron_rows for p in parts.up.parameters()}
        cuts |= {id(parts.outward.weight): (slice(None), rows), id(parts.down.weight): (slice(None), neuron_rows)}
        self.size = (heads, neurons)
        self._cuts = {name: cuts[id(p)] for name, p in self.layer.named_parameters() if id(p) in cuts}

    def forward(self, hidden_states: Tensor, *rest: Any, **named: Any) -> Tensor:
        """Hidden states ``[B, T, H]`` to ``[B, T, H]``; other arguments go to the layer as they are."""
        if not self.kept:
            return hidden_states
        if self.memory is None:
            return self._computed(hidden_states, *rest, **named)
        return self.memory.state(lambda: self._computed(hidden_states, *rest, **named))

    def _computed(self, *arguments: Any, **named: Any) -> Tensor:
        # Slices are views: nothing is copied, and gradients reach the active part of each weight.
        own = dict(self.layer.named_parameters())
        return functional_call(self.layer, {name: own[name][cut] for name, cut in self._cuts.items()}, arguments, named)


class Memory:
    """Hidden states behind the layers that sub-networks have in common, for the same texts and weights.

    The state behind a layer depends on the inputs and on the layers so far, each with its heads and neurons. The states
    that were not needed for the longest time are forgotten first.
    """

    def __init__(self, most: int = SHARED_BYTES):
        self.most, self.bytes = most, 0
        self.states: OrderedDict[tuple, Tensor] = OrderedDict()
        self._ahead: list[tuple] = []
        self._skipped, self._known = 0, None

    def begin(self, inputs: tuple, layers: list[tuple[int, int, int]]) -> None:
        """A forward pass begins: what it is of, and the layers that it goes through."""
        self._ahead = [(inputs, *layers[: i + 1]) for i in range(len(layers))]
        # Up to the last layer whose state is known nothing is computed.
        self._skipped = max((i for i, path in enumerate(self._ahead, start=1) if path in self.states), default=0)
        if self._skipped:
            known = self._ahead[self._skipped - 1]
            self._known = self.states[known]
            self.states.move_to_end(known)

    def state(self, compute: Callable[[], Tensor]) -> Tensor:
        """The state behind the next layer; of the skipped ones that of the last, for nobody looks at the others."""
        path = self._ahead.pop(0)
        if self._skipped:
            self._skipped -= 1
            return self._known
        state = self.states[path] = compute()
        self.bytes += state.nbytes
        while self.bytes > self.most:
            self.bytes -= self.states.popitem(last=False)[1].nbytes
        return state


class ElasticEncoder(Supernet):
    """A pretrained encoder whose layers, heads and neurons can be left out from one forward pass to the next.

    Args:
        model: BERT, MiniLM, RoBERTa or DistilBERT; taken over, its layers are replaced.
        head_scores: importance ``[layers, heads]``.
        neuron_scores: importance ``[layers, neurons]``.
    """

    def __init__(self, model: nn.Module, head_scores: np.ndarray, neuron_scores: np.ndarray):
        super().__init__()
        ranked = (np.argsort(-scores, axis=1, kind="stable") for scores in (head_scores, neuron_scores))
        replace_layers(model, [ElasticLayer(*parts) for parts in zip(layers_of(model), *ranked, strict=True)])
        self.model = model
        self._memory: Memory | None = None

    @property
    def config(self) -> Any:
        """The encoder's own."""
        return self.model.config

    def select(self, architecture: Architecture) -> None:
        select_widths(layers_of(self.model), widths_of(architecture))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Any:
        """Shapes as in :meth:`SearchSpace.build`; packed rows bring a mask ``[B, 1, T, T]`` and their positions."""
        if self._memory is not None:
            layers = [(i, *layer.size) for i, layer in enumerate(layers_of(self.model)) if layer.kept]
            self._memory.begin(fingerprint(input_ids, attention_mask, position_ids), layers)
        return self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Within, sub-networks with the same first layers compute them once for the same texts.

        Weights must not change meanwhile, and nothing is differentiated or dropped out.
        """
        self._share(Memory())
        try:
            yield
        finally:
            self._share(None)

    def extract(self, architecture: Architecture) -> nn.Module:
        sources = list(layers_of(self.model))
        cut = [
            slice_layer(sources[i].layer, np.arange(heads), np.arange(neurons))
            for i, (heads, neurons) in widths_of(architecture).items()
        ]
        model = copy.deepcopy(self.model, {id(layer): layer for layer in sources})
        replace_layers(model, cut)
        return model

    def _share(self, memory: Memory | None) -> None:
        self._memory = memory
        for layer in layers_of(self.model):
            layer.memory = memory


def select_widths(layers: Iterable[nn.Module], widths: Mapping[int, Sequence[int]]) -> None:
    """Elastic layers compute with these widths from now on; those without any hand on what they are given."""
    for i, layer in enumerate(layers):
        layer.kept = i in widths
        if layer.kept:
            layer.set_sub_network(*widths[i])


def fingerprint(*inputs: Tensor | None) -> tuple:
    """What tells inputs of the model from others: shapes and a hash of the values."""
    return tuple(None if x is None else (*x.shape, hash(x.cpu().numpy().tobytes())) for x in inputs)
