"""Slicing of causal language models: removes layers, key-value groups, heads and neurons, and exports the result.

With grouped-query attention (Ainslie et al. 2023, "GQA") several query heads share one key and value head; together
they form a group. A group is kept or removed as a whole, and all groups of a layer keep the same number of query heads,
because the attention of these models expects it. In models without grouped-query attention a group is one head.

Models in this module are :class:`search_spaces.pretrained.causal_lm.CausalStates`. The module knows where the GPT-2,
Llama, Qwen2 and Qwen3 models of transformers keep their projections.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from nas_meta import Architecture
from nas_meta.errors import ConfigError
from search_spaces.pretrained.causal_lm import CausalStates
from search_spaces.slicing import head_rows

if TYPE_CHECKING:
    from torch import nn


FAMILIES = ("gpt2", "llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class DecoderParts:
    """The output projections of one decoder layer and its sizes.

    Attributes:
        outward: Projection of the attention output. A query head owns ``head_size`` consecutive inputs.
        down: Second feed-forward projection. A neuron owns one input.
        head_size: Width of one head.
        groups: Number of key-value heads.
        group_heads: Number of query heads that share one key-value head.
        neurons: Number of feed-forward neurons.
    """

    outward: nn.Module
    down: nn.Module
    head_size: int
    groups: int
    group_heads: int
    neurons: int

    @property
    def heads(self) -> int:
        """Number of query heads of the layer."""
        return self.groups * self.group_heads


@dataclass(frozen=True)
class Cut:
    """The outputs, or the inputs, of one projection that belong to the kept units of its layer.

    Attributes:
        linear: The projection: a ``Linear``, or GPT-2's ``Conv1D``, whose weight is transposed.
        units: Indices of the outputs or inputs.
        outputs: Whether ``units`` are outputs of the projection rather than inputs.
    """

    linear: nn.Module
    units: torch.Tensor
    outputs: bool

    @property
    def dim(self) -> int:
        """Dimension of the weight that ``units`` index."""
        return int(self.outputs == isinstance(self.linear, Conv1D))

    def keep(self) -> None:
        """Remove all other outputs or inputs of the projection, in place."""
        self.linear.weight = nn.Parameter(self.linear.weight.detach().index_select(self.dim, self.units))
        if self.outputs and self.linear.bias is not None:
            self.linear.bias = nn.Parameter(self.linear.bias.detach()[self.units])
        if isinstance(self.linear, Conv1D):
            self.linear.nx, self.linear.nf = self.linear.weight.shape
        else:
            self.linear.out_features, self.linear.in_features = self.linear.weight.shape

    def fill(self, small: nn.Module) -> None:
        """Copy the weights of a sliced projection into this one, and set all other weights to zero.

        Args:
            small: The sliced projection, which has only the outputs or inputs of this cut.
        """
        with torch.no_grad():
            self.linear.weight.zero_().index_copy_(self.dim, self.units, small.weight)
            if self.outputs and self.linear.bias is not None:
                self.linear.bias.zero_().index_copy_(0, self.units, small.bias)


def layers_of(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers.

    Args:
        model: A causal language model wrapped in ``CausalStates``.

    Returns:
        The module list itself, not a copy.

    Raises:
        ConfigError: The model belongs to none of the supported families, or scales attention by the layer index.
    """
    config, body = model.config, model.lm.base_model
    if config.model_type not in FAMILIES:
        raise ConfigError(f"space.model is a {config.model_type} model; expected one of {', '.join(FAMILIES)}")
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise ConfigError(
            "space.model scales attention by the layer index (scale_attn_by_inverse_layer_idx), so its layers cannot "
            "be removed; expected a model without this setting"
        )
    return body.h if config.model_type == "gpt2" else body.layers


def replace_layers(model: nn.Module, layers: Sequence[nn.Module], kept: Sequence[int]) -> None:
    """Replace the decoder layers of a model in place and update its config.

    Args:
        model: A causal language model wrapped in ``CausalStates``.
        layers: The new layers, in order.
        kept: For each new layer the index of the old layer that it comes from.
    """
    for number, layer in enumerate(layers):
        attention_of(layer).layer_idx = number  # index into the key-value cache
    setattr(model.lm.base_model, "h" if model.config.model_type == "gpt2" else "layers", nn.ModuleList(layers))
    layer_types = getattr(model.config, "layer_types", None)
    model.config.num_hidden_layers = len(layers)
    if layer_types is not None:
        model.config.layer_types = [layer_types[i] for i in kept]


def attention_of(layer: nn.Module) -> nn.Module:
    """Return the attention module of a layer.

    Args:
        layer: A decoder layer, or an elastic layer that wraps one.

    Returns:
        The attention module.
    """
    layer = getattr(layer, "layer", layer)  # unwrap an elastic layer
    return layer.attn if hasattr(layer, "attn") else layer.self_attn


def parts_of(layer: nn.Module) -> DecoderParts:
    """Return the output projections and the sizes of a layer.

    Args:
        layer: A decoder layer, whole or sliced.

    Returns:
        The projections, not copied, and the sizes.
    """
    attention, mlp = attention_of(layer), layer.mlp
    if hasattr(attention, "c_attn"):
        heads = attention.split_size // attention.head_dim
        return DecoderParts(attention.c_proj, mlp.c_proj, attention.head_dim, heads, 1, mlp.c_fc.nf)
    size = attention.head_dim
    groups, group_heads = attention.k_proj.out_features // size, attention.num_key_value_groups
    return DecoderParts(attention.o_proj, mlp.down_proj, size, groups, group_heads, mlp.up_proj.out_features)


def cuts_of(layer: nn.Module, heads: np.ndarray, neurons: np.ndarray) -> list[Cut]:
    """Return the outputs and inputs of each projection that belong to the given units of a layer.

    Args:
        layer: A decoder layer.
        heads: Query heads to keep, ``[groups, heads per group]``. The heads of a row share a key-value head.
        neurons: Feed-forward neurons to keep, ``[neurons]``.

    Returns:
        One cut per projection, those of outputs first.
    """
    parts, attention, mlp = parts_of(layer), attention_of(layer), layer.mlp
    query = head_rows(heads.ravel(), parts.head_size)
    group = head_rows(heads[:, 0] // parts.group_heads, parts.head_size)
    unit = torch.from_numpy(neurons)
    if hasattr(attention, "c_attn"):
        # GPT-2 stores query, key and value in one projection, one after the other.
        fused = torch.cat([query + i * attention.split_size for i in range(3)])
        inward = [(attention.c_attn, fused), (mlp.c_fc, unit)]
    else:
        inward = [(attention.q_proj, query), (attention.k_proj, group), (attention.v_proj, group)]
        inward += [(mlp.gate_proj, unit), (mlp.up_proj, unit)]
    outward = [(parts.outward, query), (parts.down, unit)]
    return [Cut(*part, outputs=True) for part in inward] + [Cut(*part, outputs=False) for part in outward]


def slice_layer(layer: nn.Module, heads: np.ndarray, neurons: np.ndarray) -> nn.Module:
    """Return a copy of a layer with only the given heads and neurons.

    Args:
        layer: The layer to slice; it is not changed.
        heads: Query heads to keep, ``[groups, heads per group]``, in their new order.
        neurons: Feed-forward neurons to keep, ``[neurons]``, in their new order.

    Returns:
        A smaller layer with copied weights.
    """
    layer = copy.deepcopy(layer)
    for cut in cuts_of(layer, heads, neurons):
        cut.keep()
    attention = attention_of(layer)
    if hasattr(attention, "c_attn"):
        attention.num_heads = len(heads)
        attention.split_size = heads.size * attention.head_dim
    else:
        attention.num_key_value_groups = heads.shape[1]
        layer.mlp.intermediate_size = len(neurons)
    return layer


def widths(model: nn.Module) -> list[tuple[int, int, int]]:
    """Return the sizes of every layer.

    Args:
        model: A causal language model wrapped in ``CausalStates``, whole or sliced.

    Returns:
        One triple ``(groups, heads per group, neurons)`` per layer.
    """
    return [(p.groups, p.group_heads, p.neurons) for p in map(parts_of, layers_of(model))]


def first_heads(groups: int, heads: int, of: int) -> np.ndarray:
    """Return the indices of the first heads of the first groups.

    With four heads per group, the first two heads of the first two groups are ``[[0, 1], [4, 5]]``.

    Args:
        groups: Number of groups.
        heads: Number of heads per group.
        of: Number of heads that each group has in the layer.

    Returns:
        Head indices ``[groups, heads]``.
    """
    return np.arange(groups)[:, None] * of + np.arange(heads)


def save_padded(model: nn.Module, folder: str | Path) -> None:
    """Save a sliced model as a standard causal language model with uniform layers and the same outputs.

    Every layer is padded with zeros, which change no output, to the size of the largest one. Layers of GPT-2 get all
    heads, because its config ties their number to the hidden size. The config of the folder records the true sizes of
    each layer as ``decoder_widths``.

    Args:
        model: A model whose layers come from :func:`slice_layer`; it is not changed.
        folder: Destination folder.
    """
    config, layer_widths = copy.deepcopy(model.config), widths(model)
    groups, heads, neurons = map(max, zip(*layer_widths, strict=True))
    if config.model_type == "gpt2":
        config.n_inner = neurons
    else:
        config.head_dim = parts_of(layers_of(model)[0]).head_size
        groups, heads = _allowed(config, groups, heads)
        config.num_attention_heads, config.num_key_value_heads = groups * heads, groups
        config.intermediate_size = neurons
    config.decoder_widths = [list(sizes) for sizes in layer_widths]
    uniform = CausalStates(AutoModelForCausalLM.from_config(config))
    for i, (small, sizes) in enumerate(zip(layers_of(model), layer_widths, strict=True)):
        large = layers_of(uniform)[i]
        names = {id(module): name for name, module in large.named_modules()}
        for cut in cuts_of(large, first_heads(*sizes[:2], of=parts_of(large).group_heads), np.arange(sizes[2])):
            cut.fill(small.get_submodule(names[id(cut.linear)]))
    # The cuts above have filled the tensors whose shape grew; all others are copied.
    state, padded = model.state_dict(), uniform.state_dict()
    uniform.load_state_dict({n: t if t.shape == padded[n].shape else padded[n] for n, t in state.items()})
    uniform.lm.save_pretrained(folder)


def _allowed(config: Any, groups: int, heads: int) -> tuple[int, int]:
    """Return the smallest groups and heads per group, at least these, whose product divides the hidden size.

    Llama's config refuses other products, although the model itself would work. The numbers of the original model are
    always allowed.
    """
    original = config.num_key_value_heads, config.num_attention_heads // config.num_key_value_heads
    larger = [(g, h) for g in range(groups, original[0] + 1) for h in range(heads, original[1] + 1)]
    fitting = [(g, h) for g, h in larger if config.hidden_size % (g * h) == 0]
    return min(fitting or [original], key=lambda pair: pair[0] * pair[1])


def load_sliced(folder: str | Path) -> nn.Module:
    """Load an exported causal language model and remove its zero-padded groups, heads and neurons.

    The result is smaller and faster than the model that ``AutoModelForCausalLM`` loads and gives the same outputs.

    Args:
        folder: A folder written by :func:`save_padded`, or the folder of any model of the supported families.

    Returns:
        The sliced model as ``CausalStates``, in evaluation mode.
    """
    lm = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, weights_only=True, dtype="float32")
    model = CausalStates(lm).eval()
    sources = layers_of(model)
    layer_widths = getattr(model.config, "decoder_widths", None) or widths(model)
    sliced = [
        slice_layer(layer, first_heads(groups, heads, parts_of(layer).group_heads), np.arange(neurons))
        for layer, (groups, heads, neurons) in zip(sources, layer_widths, strict=True)
    ]
    replace_layers(model, sliced, range(len(sliced)))
    return model


def widths_of(architecture: Architecture) -> dict[int, tuple[int, int, int]]:
    """Return the sizes of the layers that an architecture keeps.

    Args:
        architecture: An architecture of ``decoder-subnet``.

    Returns:
        ``(groups, heads per group, neurons)`` by the index of the pretrained layer, in order.
    """
    values = architecture.values
    layers = [int(n[len("layer") : -len(".keep")]) for n, value in values.items() if n.endswith(".keep") and value]
    sizes = {i: [values.get(f"layer{i}.{n}", 1) for n in ("groups", "heads", "ffn")] for i in sorted(layers)}
    return {i: tuple(numbers) for i, numbers in sizes.items()}
