"""Slicing of BERT-family encoders: removes heads, neurons and layers, and exports the result in uniform shapes.

A sliced model has layers of different widths, which no config of transformers can describe. :func:`save_padded` fills
the missing units with zeros, so that transformers loads the folder as a standard model with the same outputs, and
:func:`load_sliced` removes them again.

This module knows where the BERT, RoBERTa, ELECTRA-like and DistilBERT models of transformers keep their projections.
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

FAMILIES = "a BERT-family encoder (BERT, MiniLM, RoBERTa, DistilBERT)"
QKV = {"bert": ("query", "key", "value"), "distilbert": ("q_lin", "k_lin", "v_lin")}


@dataclass(frozen=True)
class LayerParts:
    """The projections of one encoder layer.

    Attributes:
        inward: Query, key and value projections. A head owns ``head_size`` consecutive output rows of each.
        outward: Projection of the attention output. A head owns ``head_size`` consecutive input columns.
        up: First feed-forward projection. A neuron owns one output row.
        down: Second feed-forward projection. A neuron owns one input column.
        head_size: Width of one attention head.
    """

    inward: tuple[nn.Linear, ...]
    outward: nn.Linear
    up: nn.Linear
    down: nn.Linear
    head_size: int

    @property
    def heads(self) -> int:
        """Number of attention heads of the layer."""
        return self.outward.in_features // self.head_size

    @property
    def neurons(self) -> int:
        """Number of feed-forward neurons of the layer."""
        return self.down.in_features


def layers_of(model: nn.Module) -> nn.ModuleList:
    """Return the list of encoder layers.

    Args:
        model: A BERT-family encoder of transformers.

    Returns:
        The module list itself, not a copy.

    Raises:
        ConfigError: The model is not a BERT-family encoder.
    """
    for stack in ("encoder", "transformer"):
        layers = getattr(getattr(model, stack, None), "layer", None)
        if isinstance(layers, nn.ModuleList):
            return layers
    raise ConfigError(f"space.model is a {type(model).__name__}; expected {FAMILIES}")


def replace_layers(model: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Replace the encoder layers of a model in place and update the layer count in its config.

    Args:
        model: A BERT-family encoder of transformers.
        layers: The new layers, in order.
    """
    stack = model.encoder if hasattr(model, "encoder") else model.transformer
    stack.layer = nn.ModuleList(layers)
    model.config.num_hidden_layers = len(layers)


def parts_of(layer: nn.Module) -> LayerParts:
    """Return the projections of an encoder layer.

    Args:
        layer: A layer of a BERT-family encoder, whole or sliced.

    Returns:
        The projections of the layer, not copied.

    Raises:
        ConfigError: The layer is not that of a BERT-family encoder.
    """
    try:
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
    except AttributeError as error:
        raise ConfigError(
            f"the layers of space.model are {type(layer).__name__}; expected those of {FAMILIES}"
        ) from error


def head_rows(heads: np.ndarray, head_size: int) -> torch.Tensor:
    """Return the row indices of a projection that belong to the given heads.

    With ``head_size`` 2, heads ``[0, 3]`` own the rows ``[0, 1, 6, 7]``.

    Args:
        heads: Head indices ``[heads]``.
        head_size: Width of one head.

    Returns:
        Row indices ``[heads * head_size]``.
    """
    return torch.from_numpy((heads[:, None] * head_size + np.arange(head_size)).ravel())


def slice_layer(layer: nn.Module, heads: np.ndarray, neurons: np.ndarray) -> nn.Module:
    """Return a copy of a layer with only the given heads and neurons.

    Args:
        layer: The layer to slice; it is not changed.
        heads: Indices of the heads to keep, in their new order.
        neurons: Indices of the feed-forward neurons to keep, in their new order.

    Returns:
        A smaller layer with copied weights.
    """
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
    """Remove all outputs of a linear layer except the given ones, in place.

    Args:
        linear: A linear layer with a bias.
        rows: Indices of the outputs to keep.
    """
    linear.weight = nn.Parameter(linear.weight.detach()[rows].clone())
    linear.bias = nn.Parameter(linear.bias.detach()[rows].clone())
    linear.out_features = len(rows)


def keep_columns(linear: nn.Linear, columns: torch.Tensor) -> None:
    """Remove all inputs of a linear layer except the given ones, in place.

    Args:
        linear: A linear layer.
        columns: Indices of the inputs to keep.
    """
    linear.weight = nn.Parameter(linear.weight.detach()[:, columns].clone())
    linear.in_features = len(columns)


def widths(model: nn.Module) -> list[tuple[int, int]]:
    """Return the number of heads and neurons of every layer.

    Args:
        model: A BERT-family encoder, whole or sliced.

    Returns:
        One pair ``(heads, neurons)`` per layer.
    """
    parts = [parts_of(layer) for layer in layers_of(model)]
    return [(p.outward.in_features // p.head_size, p.up.out_features) for p in parts]


def padded_state(model: nn.Module, heads: int, neurons: int) -> dict[str, torch.Tensor]:
    """Return the state of a sliced model in uniform shapes, with zeros for missing heads and neurons.

    The zeros change no output: a missing head produces zero values and meets zero columns in the projection after it,
    and a missing neuron likewise.

    Args:
        model: The sliced encoder; it is not changed.
        heads: Number of heads of every padded layer.
        neurons: Number of neurons of every padded layer.

    Returns:
        A state dict for a model whose layers all have ``heads`` heads and ``neurons`` neurons.
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
    """Save a sliced or widened model as a standard transformers folder with uniform layers.

    The config of the folder records the true widths of each layer as ``nas_meta_widths``.

    Args:
        model: The encoder to save; it is not changed.
        folder: Destination folder.
    """
    from transformers import AutoModel

    layer_widths = widths(model)
    neurons = max(n for _, n in layer_widths)
    config = copy.deepcopy(model.config)
    key = "hidden_dim" if hasattr(config, "hidden_dim") else "intermediate_size"
    setattr(config, key, neurons)
    config.nas_meta_widths = [list(pair) for pair in layer_widths]
    uniform = AutoModel.from_config(config)
    heads = getattr(config, "n_heads", None) or config.num_attention_heads
    uniform.load_state_dict(padded_state(model, heads, neurons))
    uniform.save_pretrained(folder)


def grown(tensor: torch.Tensor, dim: int, size: int) -> nn.Parameter:
    """Return a tensor padded with zeros at the end of one dimension.

    Args:
        tensor: The tensor to pad; it is not changed.
        dim: Dimension to pad.
        size: Size of that dimension after padding; at least its current size.

    Returns:
        A new parameter.
    """
    shape = list(tensor.shape)
    shape[dim] = size - shape[dim]
    return nn.Parameter(torch.cat([tensor.detach(), tensor.new_zeros(shape)], dim))


def load_sliced(folder: str | Path) -> nn.Module:
    """Load an exported model and remove its zero-padded heads and neurons.

    The result is smaller and faster than the model that ``AutoModel`` loads and gives the same outputs.

    Args:
        folder: A folder written by :func:`save_padded`, or the folder of any BERT-family encoder.

    Returns:
        The sliced encoder in evaluation mode.
    """
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, trust_remote_code=False, dtype="float32").eval()
    layer_widths = getattr(model.config, "nas_meta_widths", None) or widths(model)
    sliced = [
        slice_layer(layer, np.arange(heads), np.arange(neurons))
        for layer, (heads, neurons) in zip(layers_of(model), layer_widths, strict=True)
    ]
    replace_layers(model, sliced)
    return model
