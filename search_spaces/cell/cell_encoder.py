"""Layers whose operation and wiring are searched, over the word embeddings of a pretrained encoder."""

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
from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import MINILM
from nas_meta.tasks.pool import Tasks
from search_spaces.pretrained.loading import load_pretrained

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.space.supernet import Supernet

IDENTITY = "identity"


class CellEncoderOptions(PluginOptions):
    """Options of ``cell-encoder``."""

    model: str = Field(MINILM, description="whose word embeddings: a folder, a hub name, or starter:minilm")
    layers: int = Field(4, ge=1, description="layers of one operation each")
    heads: list[int] = Field([4, 12], description="numbers of heads that self-attention may have")
    kernels: list[int] = Field(
        [3, 7], description="widths that a depthwise convolution may have, odd numbers of tokens"
    )
    gated: list[float] = Field([2.0], description="widths that a gated MLP may have, as shares of the hidden size")
    ffn: list[float] = Field(
        [1.0, 4.0], description="widths that a feed-forward may have, as shares of the hidden size"
    )


class CellEncoder(SearchSpace):
    """Each layer chooses its operation, the state it reads and the state it is added to.

    States are numbered: 0 are the embeddings, i + 1 what layer i gives. The output is the last one. A layer that
    nothing reads has to be the identity, so that no architecture has parameters without effect. What an identity gives
    is an earlier state under another number: wirings that differ only in that number are one architecture.
    """

    Options = CellEncoderOptions

    def __init__(self, options: CellEncoderOptions | None = None):
        super().__init__(options)
        self.tokenizer = self.options.model
        self._tables: dict[str, np.ndarray] | None = None
        self._eps = 1e-12
        o = self.options
        for name, right, expected in (
            ("heads", lambda n: n >= 1, "numbers from 1 on"),
            ("kernels", lambda n: n >= 1 and n % 2 == 1, "odd numbers from 1 on"),
            ("gated", lambda share: share > 0, "shares above 0"),
            ("ffn", lambda share: share > 0, "shares above 0"),
        ):
            wrong = [value for value in getattr(o, name) if not right(value)]
            if wrong:
                raise ConfigError(f"space.{name} has {wrong[0]}; expected {expected}")

    @cached_property
    def operations(self) -> tuple[str, ...]:
        """``attention-HEADS``, ``convolution-WIDTH``, ``gated-mlp-SHARE``, ``feed-forward-SHARE``, and the identity."""
        o = self.options
        return (
            *(f"attention-{heads}" for heads in o.heads),
            *(f"convolution-{kernel}" for kernel in o.kernels),
            *(f"gated-mlp-{share:g}" for share in o.gated),
            *(f"feed-forward-{share:g}" for share in o.ffn),
            IDENTITY,
        )

    def choices(self) -> Mapping[str, Choice]:
        reading = tuple(value for value in self.operations if value != IDENTITY)
        table: dict[str, Choice] = {}
        for i in range(self.options.layers):
            table[f"layer{i}.op"] = Choice(self.operations)
            if i > 0:  # before the first layer there is only one state
                states = tuple(range(i + 1))
                table[f"layer{i}.input"] = Choice(states, when={f"layer{i}.op": reading})
                table[f"layer{i}.add"] = Choice(states)
        return table

    def problem(self, architecture: Architecture) -> str | None:
        used = self.used_layers(architecture)
        for i in range(self.options.layers):
            if i not in used and architecture[f"layer{i}.op"] != IDENTITY:
                return f"nothing reads layer {i}; expected the identity there"
        return None

    def representative(self, architecture: Architecture) -> Architecture:
        """States by their first number; an identity, whose state then nothing reads, passes on the embeddings.

        Layers stay where they are, since in a supernet each has weights of its own.
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
        """Exact: Σ over the number m of layers that are no identity of C(L, m) · operations^m · wirings(m)."""
        layers, choices = self.options.layers, len(self.operations) - 1
        return sum(comb(layers, m) * choices**m * wirings(m) for m in range(layers + 1))

    def used_layers(self, architecture: Architecture) -> set[int]:
        """The layers that the output depends on, but for identities."""
        first = self._first_numbers(architecture)
        used = {first[self.options.layers]}  # states first: layer i gives state i + 1
        for i in reversed(range(self.options.layers)):
            if i + 1 in used:
                used |= {first[_state(architecture, i, part)] for part in ("add", "input")}
        return {state - 1 for state in used if state > 0}

    def _first_numbers(self, architecture: Architecture) -> list[int]:
        """Of every state the lowest number of one that is the same."""
        first = [0]
        for i in range(self.options.layers):
            passed = architecture[f"layer{i}.op"] == IDENTITY
            first.append(first[_state(architecture, i, "add")] if passed else i + 1)
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
            more_params, more_flops = operation_counts(architecture[f"layer{i}.op"], hidden, tokens)
            params, flops = params + more_params, flops + more_flops
        return {"params": params, "flops": flops}

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """A folder with its code: ``AutoModel.from_pretrained(folder, trust_remote_code=True)`` needs no nas-meta."""
        from search_spaces.cell.cell_model import CellEncoderConfig, CellEncoderModel

        CellEncoderConfig.register_for_auto_class()
        CellEncoderModel.register_for_auto_class("AutoModel")
        model.save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        """The model by the class that is installed: a folder's own code is not run."""
        from search_spaces.cell.cell_model import CellEncoderConfig, CellEncoderModel

        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if described.get("model_type") != CellEncoderConfig.model_type:
            return super().load(folder)
        return CellEncoderModel.from_pretrained(folder)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_loaded"}

    @cached_property
    def _loaded(self) -> dict[str, np.ndarray]:
        """The pretrained tables as arrays, which Ray shares between the workers of a node."""
        embeddings = getattr(load_pretrained(self.options.model), "embeddings", None)
        names = ("word_embeddings", "position_embeddings", "LayerNorm")
        if not all(hasattr(embeddings, name) for name in names):
            raise ConfigError(
                f"space.model '{self.options.model}' has no word embeddings that are known here; "
                "expected a BERT-family encoder (BERT, MiniLM, RoBERTa, DistilBERT)"
            )
        words, places, norm = (getattr(embeddings, name) for name in names)
        hidden = words.weight.shape[1]
        for heads in self.options.heads:
            if hidden % heads:
                raise ConfigError(
                    f"space.heads has {heads}; expected divisors of {hidden}, the width of the embeddings"
                )
        first = 0 if places.padding_idx is None else places.padding_idx + 1  # RoBERTa counts from there
        positions = places.weight.detach()[first:].clone()
        if hasattr(embeddings, "token_type_embeddings"):
            positions += embeddings.token_type_embeddings.weight.detach()[0]  # one text, one type
        tables = {"words": words.weight, "positions": positions, "norm": norm.weight, "norm_bias": norm.bias}
        self._eps = norm.eps
        return {name: tensor.detach().numpy() for name, tensor in tables.items()}

    def _model(self, operations: list[str], inputs: list[int], adds: list[int]) -> nn.Module:
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
    """The state that a layer reads or is added to; that before it where there is no choice."""
    return architecture.values.get(f"layer{layer}.{part}", layer)


def wirings(layers: int) -> int:
    """How layers without identities can be wired so that each is read.

    Layer i reads one of the i + 1 states before it and is added to one; by inclusion and exclusion of the layers
    but the last that nothing reads, Σ over sets S of them of (-1)^|S| · Π_i (i + 1 - |S below i|)².
    """
    ways = {0: 1}  # by the size of S so far, signs included
    for i in range(layers):
        wired = {out: count * (i + 1 - out) ** 2 for out, count in ways.items()}
        ways = dict(wired)
        if i < layers - 1:
            for out, count in wired.items():
                ways[out + 1] = ways.get(out + 1, 0) - count
    return sum(ways.values())


def operation_counts(value: str, hidden: int, tokens: int) -> tuple[int, int]:
    """Parameters of an operation, and FLOPs of one text: 2 · tokens · (weights of its matrices and filters).

    Attention adds 4 · tokens² · hidden.
    """
    kind, _, size = value.rpartition("-")
    norm = 2 * hidden
    if kind == "attention":
        matrices, biases, more = 4 * hidden**2, 4 * hidden, 4 * tokens**2 * hidden
    elif kind == "convolution":
        matrices, biases, more = int(size) * hidden + hidden**2, 2 * hidden, 0
    elif kind in ("gated-mlp", "feed-forward"):
        width, ups = round(float(size) * hidden), 2 if kind == "gated-mlp" else 1
        matrices, biases, more = (ups + 1) * hidden * width, ups * width + hidden, 0
    else:
        return 0, 0
    return norm + matrices + biases, 2 * tokens * matrices + more
