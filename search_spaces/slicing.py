"""Cutting heads, neurons and layers out of a BERT-family encoder, and laying a cut model back into full shapes.

Knows where BERT, RoBERTa, ELECTRA-like and DistilBERT models of transformers keep their projections.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nas_meta.errors import ConfigError

QKV = {"bert": ("query", "key", "value"), "distilbert": ("q_lin", "k_lin", "v_lin")}


@dataclass(frozen=True)
class LayerParts:
    """The projections of one encoder layer.

    Attributes:
        inward: query, key and value projections; their output rows belong to heads.
        outward: the projection behind the heads; its input columns belong to heads.
        up: the first feed-forward projection, a row a neuron.
        down: the second, a column a neuron.
    """

    inward: tuple[nn.Linear, ...]
    outward: nn.Linear
    up: nn.Linear
    down: nn.Linear
    head_size: int

    @property
    def heads(self) -> int:
        """How many the layer has."""
        return self.outward.in_features // self.head_size

    @property
    def neurons(self) -> int:
        """How many the layer has."""
        return self.down.in_features


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The list of encoder layers.

    Raises:
        ConfigError: the model is not of the BERT family.
    """
    for stack in ("encoder", "transformer"):
        found = getattr(getattr(model, stack, None), "layer", None)
        if isinstance(found, nn.ModuleList):
            return found
    raise ConfigError(
        f"space.model is a {type(model).__name__}; expected a BERT-family encoder (BERT, MiniLM, RoBERTa, DistilBERT)"
    )


def replace_layers(model: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Puts other layers in place of a model's own."""
    stack = model.encoder if hasattr(model, "encoder") else model.transformer
    stack.layer = nn.ModuleList(layers)
    model.config.num_hidden_layers = len(layers)


def parts_of(layer: nn.Module) -> LayerParts:
    """Where a layer keeps its projections."""
    attention = layer.attention
    if hasattr(attention, "self"):
        inner = attention.self
        inward = tuple(getattr(inner, name) for name in QKV["bert"])
        return LayerParts(
            inward,
            attention.output.dense,
            layer.intermediate.dense,
            layer.output.dense,
            inner.attention_head_size,
        )
    inward = tuple(getattr(attention, name) for name in QKV["distilbert"])
    return LayerParts(inward, attention.out_lin, layer.ffn.lin1, layer.ffn.lin2, attention.attention_head_size)


def head_rows(heads: np.ndarray, head_size: int) -> torch.Tensor:
    """The rows of a projection that belong to the given heads."""
    return torch.from_numpy((heads[:, None] * head_size + np.arange(head_size)).ravel())


def slice_layer(layer: nn.Module, heads: np.ndarray, neurons: np.ndarray) -> nn.Module:
    """A copy of a layer with only the given heads and neurons (sorted indices)."""
    layer = copy.deepcopy(layer)
    parts = parts_of(layer)
    rows = head_rows(heads, parts.head_size)
    for linear in parts.inward:
        keep_rows(linear, rows)
    keep_columns(parts.outward, rows)
    keep_rows(parts.up, torch.from_numpy(neurons))
    keep_columns(parts.down, torch.from_numpy(neurons))
    return layer


def keep_rows(linear: nn.Linear, rows: torch.Tensor) -> None:
    """Keeps those outputs of a linear layer, in place."""
    linear.weight = nn.Parameter(linear.weight.detach()[rows].clone())
    linear.bias = nn.Parameter(linear.bias.detach()[rows].clone())
    linear.out_features = len(rows)


def keep_columns(linear: nn.Linear, columns: torch.Tensor) -> None:
    """Keeps those inputs of a linear layer, in place."""
    linear.weight = nn.Parameter(linear.weight.detach()[:, columns].clone())
    linear.in_features = len(columns)


def widths(model: nn.Module) -> list[tuple[int, int]]:
    """Heads and neurons of every layer."""
    parts = [parts_of(layer) for layer in layers_of(model)]
    return [(p.outward.in_features // p.head_size, p.up.out_features) for p in parts]


def padded_state(model: nn.Module, heads: int, neurons: int) -> dict[str, torch.Tensor]:
    """The state of a cut model in uniform shapes: absent heads and neurons are zero and change no output.

    An absent head has zero values and zero columns in the projection behind it; an absent neuron likewise.
    """
    model = copy.deepcopy(model)
    for layer in layers_of(model):
        parts = parts_of(layer)
        for linear in parts.inward:
            linear.weight, linear.bias = (
                grown(linear.weight, 0, heads * parts.head_size),
                grown(linear.bias, 0, heads * parts.head_size),
            )
        parts.outward.weight = grown(parts.outward.weight, 1, heads * parts.head_size)
        parts.up.weight, parts.up.bias = grown(parts.up.weight, 0, neurons), grown(parts.up.bias, 0, neurons)
        parts.down.weight = grown(parts.down.weight, 1, neurons)
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def save_padded(model: nn.Module, folder: str | Path) -> None:
    """Saves a cut or widened model as one of uniform layers, which transformers loads; the config holds its widths."""
    from transformers import AutoModel

    kept = widths(model)
    neurons = max(n for _, n in kept)
    config = copy.deepcopy(model.config)
    key = "hidden_dim" if hasattr(config, "hidden_dim") else "intermediate_size"
    setattr(config, key, neurons)
    config.nas_meta_widths = [list(pair) for pair in kept]
    uniform = AutoModel.from_config(config)
    heads = getattr(config, "n_heads", None) or config.num_attention_heads
    uniform.load_state_dict(padded_state(model, heads, neurons))
    uniform.save_pretrained(folder)


def grown(tensor: torch.Tensor, dim: int, size: int) -> nn.Parameter:
    """The tensor with zeros appended along a dimension up to ``size``."""
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return nn.Parameter(torch.cat([tensor.detach(), tensor.new_zeros(shape)], dim))


def load_sliced(folder: str | Path) -> nn.Module:
    """An exported model with its absent heads and neurons cut out again: smaller and faster, the same outputs."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
    kept = getattr(model.config, "nas_meta_widths", None) or widths(model)
    cut = [
        slice_layer(layer, np.arange(heads), np.arange(neurons))
        for layer, (heads, neurons) in zip(layers_of(model), kept, strict=True)
    ]
    replace_layers(model, cut)
    return model
