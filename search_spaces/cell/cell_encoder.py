"""Search space ``cell-encoder``: layers with searched operations and wiring on top of pretrained word embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from nas_meta import Architecture, Choice, PluginOptions, SearchSpace
from nas_meta.core.paths import ModelName
from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import MINILM
from nas_meta.tasks.pool import Tasks
from search_spaces.pretrained.loading import load_pretrained

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.space.supernet import Supernet

IDENTITY = "identity"


class CellEncoderOptions(PluginOptions):
    """Options of the search space ``cell-encoder``: the operations that a layer can choose, and their sizes."""

    model: ModelName = Field(
        MINILM, description="pretrained encoder that gives the word embeddings: a folder, a hub name, or starter:minilm"
    )
    layers: int = Field(4, ge=1, description="number of layers, with one operation each")
    heads: list[int] = Field(
        [4, 12], description="candidate numbers of self-attention heads; each must divide the width of the embeddings"
    )
    kernels: list[int] = Field([3, 7], description="candidate widths of a depthwise convolution, in tokens; odd")
    gated: list[float] = Field([2.0], description="candidate widths of a gated MLP, as multiples of the hidden size")
    ffn: list[float] = Field(
        [1.0, 4.0], description="candidate widths of a feed-forward, as multiples of the hidden size"
    )


class CellEncoder(SearchSpace):
    """Encoder whose layers each choose an operation, the state they read and the state they are added to.

    State 0 is the embeddings, and layer i produces state i + 1 = (state it is added to) + operation(state it reads).
    The last state is the output. A layer that nothing reads must be the identity, so that no architecture has
    parameters without effect. An identity operation adds nothing, so its layer repeats an earlier state under another
    number; wirings that differ only in such numbers are the same architecture.

    Args:
        options: Layers and operations; the defaults of ``CellEncoderOptions`` if None.

    Raises:
        ConfigError: An option has a value outside its range.
    """

    Options = CellEncoderOptions

    def __init__(self, options: CellEncoderOptions | None = None):
        super().__init__(options)
        self.tokenizer = self.options.model
        self._tables: dict[str, np.ndarray] | None = None
        self._eps = 1e-12
        o = self.options
        for name, is_valid, expected in (
            ("heads", lambda n: n >= 1, "integers of at least 1"),
            ("kernels", lambda n: n >= 1 and n % 2 == 1, "odd integers of at least 1"),
            ("gated", lambda multiple: multiple > 0, "multiples above 0"),
            ("ffn", lambda multiple: multiple > 0, "multiples above 0"),
        ):
            wrong = [value for value in getattr(o, name) if not is_valid(value)]
            if wrong:
                raise ConfigError(f"space.{name} has {wrong[0]}; expected {expected}")

    @cached_property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations: ``attention-4``, ``convolution-3``, ``gated-mlp-2``, ..., ``identity``."""
        o = self.options
        return (
            *(f"attention-{heads}" for heads in o.heads),
            *(f"convolution-{kernel}" for kernel in o.kernels),
            *(f"gated-mlp-{multiple:g}" for multiple in o.gated),
            *(f"feed-forward-{multiple:g}" for multiple in o.ffn),
            IDENTITY,
        )

    def choices(self) -> Mapping[str, Choice]:
        reading = tuple(value for value in self.operations if value != IDENTITY)
        table: dict[str, Choice] = {}
        for i in range(self.options.layers):
            table[f"layer{i}.op"] = Choice(self.operations)
            if i > 0:  # the first layer has only one state to read
                states = tuple(range(i + 1))
                table[f"layer{i}.input"] = Choice(states, when={f"layer{i}.op": reading})
                table[f"layer{i}.add"] = Choice(states)
        return table

    def problem(self, architecture: Architecture) -> str | None:
        used = self.used_layers(architecture)
        for i in range(self.options.layers):
            if i not in used and architecture[f"layer{i}.op"] != IDENTITY:
                return f"nothing reads layer {i}; expected identity as its operation"
        return None

    def representative(self, architecture: Architecture) -> Architecture:
        """Return the canonical form of an architecture, in which no layer reads the state of an identity.

        A state that an identity repeats is renamed to the earliest number of the same state. Then nothing reads the
        identity, and it is added to state 0. For example, if layer 1 is the identity added to state 1, then layer 2
        reading state 2 becomes layer 2 reading state 1. Layers keep their positions, because in a supernet each has
        its own weights.
        """
        first, last = self._first_numbers(architecture), self.options.layers - 1
        values = dict(architecture.values)
        for i in range(self.options.layers):
            for name in (f"layer{i}.input", f"layer{i}.add"):
                if name in values:
                    values[name] = first[values[name]]
            if i < last and f"layer{i}.add" in values and values[f"layer{i}.op"] == IDENTITY:
                values[f"layer{i}.add"] = 0
        return Architecture(values)

    def size(self) -> int:
        """Return the exact number of architectures: Σ_m C(L, m) · operations^m · wirings(m).

        L is the number of layers and m the number of layers that are not identities.
        """
        layers, choices = self.options.layers, len(self.operations) - 1
        return sum(comb(layers, m) * choices**m * count_wirings(m) for m in range(layers + 1))

    def used_layers(self, architecture: Architecture) -> set[int]:
        """Return the layers that the output depends on, without identities.

        Args:
            architecture: An architecture of the space.

        Returns:
            Indices of layers.
        """
        first = self._first_numbers(architecture)
        used = {first[self.options.layers]}  # numbers of states; layer i produces state i + 1
        for i in reversed(range(self.options.layers)):
            if i + 1 in used:
                used |= {first[_state(architecture, i, part)] for part in ("add", "input")}
        return {state - 1 for state in used if state > 0}

    def _first_numbers(self, architecture: Architecture) -> list[int]:
        """Return for every state the lowest number of an equal state."""
        first = [0]
        for i in range(self.options.layers):
            is_identity = architecture[f"layer{i}.op"] == IDENTITY
            first.append(first[_state(architecture, i, "add")] if is_identity else i + 1)
        return first

    def prepare(self, tasks: Tasks, seed: int) -> None:
        self._tables = self._loaded

    def build(self, architecture: Architecture) -> nn.Module:
        layers = range(self.options.layers)
        return self._model(
            operations=[architecture[f"layer{i}.op"] for i in layers],
            inputs=[_state(architecture, i, "input") for i in layers],
            adds=[_state(architecture, i, "add") for i in layers],
        )

    def supernet(self) -> Supernet:
        from nas_meta import ChoiceInput, ChoiceLayer, ChoiceSupernet
        from search_spaces.cell.cell_model import operation

        layers = range(self.options.layers)
        model = self._model([IDENTITY for _ in layers], list(layers), list(layers))
        for i, layer in enumerate(model.layers):
            candidates = {value: operation(value, model.config.hidden_size) for value in self.operations}
            layer.operation = ChoiceLayer(f"layer{i}.op", candidates)
            layer.operation.apply(model._init_weights)
            for part, name in (("source", "input"), ("addend", "add")):
                if i > 0:
                    setattr(layer, part, ChoiceInput(f"layer{i}.{name}", range(i + 1)))
        return ChoiceSupernet(model, self.build)

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        if self._tables is None:
            return {}
        hidden = self._tables["words"].shape[1]
        params = sum(table.size for table in self._tables.values()) + 2 * hidden
        flops = 0
        for i in range(self.options.layers):
            layer_params, layer_flops = operation_counts(architecture[f"layer{i}.op"], hidden, tokens)
            params, flops = params + layer_params, flops + layer_flops
        return {"params": params, "flops": flops}

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Write a folder that includes the model code.

        ``AutoModel.from_pretrained(folder, trust_remote_code=True)`` loads it without nas-meta.
        """
        from search_spaces.cell.cell_model import CellEncoderConfig, CellEncoderModel

        CellEncoderConfig.register_for_auto_class()
        CellEncoderModel.register_for_auto_class("AutoModel")
        model.save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        """Load the model with the installed class; code in the folder is not run."""
        from search_spaces.cell.cell_model import CellEncoderConfig, CellEncoderModel

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") != CellEncoderConfig.model_type:
            return super().load(folder)
        return CellEncoderModel.from_pretrained(folder)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_loaded"}

    @cached_property
    def _loaded(self) -> dict[str, np.ndarray]:
        """The pretrained embedding tables, as arrays so that Ray shares them between the workers of a node."""
        embeddings = getattr(load_pretrained(self.options.model), "embeddings", None)
        names = ("word_embeddings", "position_embeddings", "LayerNorm")
        if not all(hasattr(embeddings, name) for name in names):
            raise ConfigError(
                f"space.model '{self.options.model}' has word embeddings of an unknown layout; "
                "expected a BERT-family encoder (BERT, MiniLM, RoBERTa, DistilBERT)"
            )
        words, position_table, norm = (getattr(embeddings, name) for name in names)
        hidden = words.weight.shape[1]
        for heads in self.options.heads:
            if hidden % heads:
                raise ConfigError(
                    f"space.heads has {heads}; expected divisors of {hidden}, the width of the embeddings"
                )
        padding = position_table.padding_idx
        first = 0 if padding is None else padding + 1  # RoBERTa's positions start after the padding index
        positions = position_table.weight.detach()[first:].clone()
        if hasattr(embeddings, "token_type_embeddings"):
            positions += embeddings.token_type_embeddings.weight.detach()[0]  # every text is a first segment
        tables = {"words": words.weight, "positions": positions, "norm": norm.weight, "norm_bias": norm.bias}
        self._eps = norm.eps
        return {name: tensor.detach().numpy() for name, tensor in tables.items()}

    def _model(self, operations: list[str], inputs: list[int], adds: list[int]) -> nn.Module:
        """Create the model of one wiring and copy the pretrained embeddings into it."""
        import torch

        from search_spaces.cell.cell_model import CellEncoderConfig, CellEncoderModel

        tables = self._tables if self._tables is not None else self._loaded
        words, positions = tables["words"], tables["positions"]
        config = CellEncoderConfig(
            vocab_size=words.shape[0],
            hidden_size=words.shape[1],
            max_position_embeddings=positions.shape[0],
            operations=operations,
            inputs=inputs,
            adds=adds,
            layer_norm_eps=self._eps,
            pad_token_id=0,
        )
        model = CellEncoderModel(config)
        parts = (model.words.weight, model.positions.weight, model.norm.weight, model.norm.bias)
        with torch.no_grad():
            for parameter, table in zip(parts, tables.values(), strict=True):
                parameter.copy_(torch.from_numpy(table))
        return model


def _state(architecture: Architecture, layer: int, part: str) -> int:
    """Return the state that a layer reads or is added to; without a choice, the state before the layer."""
    return architecture.values.get(f"layer{layer}.{part}", layer)


def count_wirings(layers: int) -> int:
    """Count the wirings of layers without identities in which every layer is read.

    Layer i reads one of the i + 1 states before it and is added to one of them. By inclusion-exclusion over the sets S
    of layers that nothing reads, where the last layer is always read by the output, the count is
    Σ_S (-1)^|S| · Π_i (i + 1 - |{j ∈ S: j < i}|)². Only the size of S so far matters, so dynamic programming over the
    layers needs one number per size. For two layers: S = {} gives 1² · 2² = 4, S = {0} gives -(1² · 1²) = -1; the count
    is 3, because one of the four wirings skips layer 0.

    Args:
        layers: Number of layers.

    Returns:
        Number of wirings; 1 for no layers.
    """
    ways = {0: 1}  # signed number of wirings by the size of S so far
    for i in range(layers):
        wired = {size: count * (i + 1 - size) ** 2 for size, count in ways.items()}
        ways = dict(wired)
        if i < layers - 1:
            for size, count in wired.items():
                ways[size + 1] = ways.get(size + 1, 0) - count
    return sum(ways.values())


def operation_counts(value: str, hidden: int, tokens: int) -> tuple[int, int]:
    """Count the parameters and FLOPs of an operation.

    FLOPs are 2 · tokens · (weights of its matrices and filters); attention adds 4 · tokens² · hidden.

    Args:
        value: Name of the operation, such as ``attention-4``.
        hidden: Hidden size.
        tokens: Length of the text.

    Returns:
        Parameters, and FLOPs of one text.
    """
    kind, _, size = value.rpartition("-")
    norm = 2 * hidden
    if kind == "attention":
        matrices, biases, products = 4 * hidden**2, 4 * hidden, 4 * tokens**2 * hidden
    elif kind == "convolution":
        matrices, biases, products = int(size) * hidden + hidden**2, 2 * hidden, 0
    elif kind in ("gated-mlp", "feed-forward"):
        width, ups = round(float(size) * hidden), 2 if kind == "gated-mlp" else 1
        matrices, biases, products = (ups + 1) * hidden * width, ups * width + hidden, 0
    else:
        return 0, 0
    return norm + matrices + biases, 2 * tokens * matrices + products
