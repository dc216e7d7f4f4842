"""Cutting layers, key-value groups, heads and neurons out of a causal language model, and laying it back together.

Knows where GPT-2, Llama, Qwen2 and Qwen3 models of transformers keep their projections. With grouped-query attention
(Ainslie et al. 2023, "GQA") several query heads share one key and value head: a group. Groups go whole, and of those
that stay every one keeps as many query heads as the others, which is what the models' attention expects. Elsewhere a
group is one head.

Models here are :class:`search_spaces.pretrained.causal_lm.CausalStates`.
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
    """The projections of one decoder layer and its sizes.

    Attributes:
        outward: the projection behind the heads; its inputs belong to query heads.
        down: the projection behind the neurons.
        groups: key-value heads.
        group_heads: query heads that share one of them.
    """

    outward: nn.Module
    down: nn.Module
    head_size: int
    groups: int
    group_heads: int
    neurons: int

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.groups * self.group_heads


@dataclass(frozen=True)
class Cut:
    """Some outputs, or some inputs, of one projection: those that belong to some units of its layer."""

    linear: nn.Module
    units: torch.Tensor
    outputs: bool

    @property
    def dim(self) -> int:
        """The dimension of the weight in which they lie."""
        return int(self.outputs == isinstance(self.linear, Conv1D))

    def keep(self) -> None:
        """Leaves the projection nothing else, in place."""
        self.linear.weight = nn.Parameter(self.linear.weight.detach().index_select(self.dim, self.units))
        if self.outputs and self.linear.bias is not None:
            self.linear.bias = nn.Parameter(self.linear.bias.detach()[self.units])
        if isinstance(self.linear, Conv1D):
            self.linear.nx, self.linear.nf = self.linear.weight.shape
        else:
            self.linear.out_features, self.linear.in_features = self.linear.weight.shape

    def fill(self, small: nn.Module) -> None:
        """Sets them to the weights of a projection that has nothing else, and all others to zero."""
        with torch.no_grad():
            self.linear.weight.zero_().index_copy_(self.dim, self.units, small.weight)
            if self.outputs and self.linear.bias is not None:
                self.linear.bias.zero_().index_copy_(0, self.units, small.bias)


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The list of decoder layers.

    Raises:
        ConfigError: the model is of none of the families.
    """
    config, body = model.config, model.lm.base_model
    if config.model_type not in FAMILIES:
        raise ConfigError(f"space.model is a {config.model_type} model; expected one of {', '.join(FAMILIES)}")
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise ConfigError(
            "space.model scales attention by the number of the layer (scale_attn_by_inverse_layer_idx), so that no "
            "layer can be left out; expected a model that does not"
        )
    return body.h if config.model_type == "gpt2" else body.layers


def replace_layers(model: nn.Module, layers: Sequence[nn.Module], kept: Sequence[int]) -> None:
    """Puts other layers in place of a model's own, those that came from the layers ``kept``."""
    for number, layer in enumerate(layers):
        attention_of(layer).layer_idx = number  # of the key-value cache
    setattr(model.lm.base_model, "h" if model.config.model_type == "gpt2" else "layers", nn.ModuleList(layers))
    kinds = getattr(model.config, "layer_types", None)
    model.config.num_hidden_layers = len(layers)
    if kinds is not None:
        model.config.layer_types = [kinds[i] for i in kept]


def attention_of(layer: nn.Module) -> nn.Module:
    """The attention of a layer."""
    layer = getattr(layer, "layer", layer)  # within an elastic one
    return layer.attn if hasattr(layer, "attn") else layer.self_attn


def parts_of(layer: nn.Module) -> DecoderParts:
    """Where a layer keeps its projections, and how large it is."""
    attention, mlp = attention_of(layer), layer.mlp
    if hasattr(attention, "c_attn"):
        heads = attention.split_size // attention.head_dim
        return DecoderParts(attention.c_proj, mlp.c_proj, attention.head_dim, heads, 1, mlp.c_fc.nf)
    size = attention.head_dim
    groups, shared = attention.k_proj.out_features // size, attention.num_key_value_groups
    return DecoderParts(attention.o_proj, mlp.down_proj, size, groups, shared, mlp.up_proj.out_features)


def cuts_of(layer: nn.Module, heads: np.ndarray, neurons: np.ndarray) -> list[Cut]:
    """What of each projection belongs to some units of a layer.

    Args:
        heads: ``[groups, heads of a group]``, query heads; those of a row share a key and value head.
        neurons: ``[neurons]``.
    """
    parts, attention, mlp = parts_of(layer), attention_of(layer), layer.mlp
    query = head_rows(heads.ravel(), parts.head_size)
    group = head_rows(heads[:, 0] // parts.group_heads, parts.head_size)
    unit = torch.from_numpy(neurons)
    if hasattr(attention, "c_attn"):
        three = torch.cat([query + i * attention.split_size for i in range(3)])
        inward = [(attention.c_attn, three), (mlp.c_fc, unit)]
    else:
        inward = [(attention.q_proj, query), (attention.k_proj, group), (attention.v_proj, group)]
        inward += [(mlp.gate_proj, unit), (mlp.up_proj, unit)]
    outward = [(parts.outward, query), (parts.down, unit)]
    return [Cut(*part, outputs=True) for part in inward] + [Cut(*part, outputs=False) for part in outward]


def slice_layer(layer: nn.Module, heads: np.ndarray, neurons: np.ndarray) -> nn.Module:
    """A copy of a layer with only the given heads ``[groups, heads of a group]`` and neurons."""
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
    """Groups, heads of a group and neurons of every layer."""
    return [(p.groups, p.group_heads, p.neurons) for p in map(parts_of, layers_of(model))]


def first_heads(groups: int, heads: int, of: int) -> np.ndarray:
    """``[groups, heads]``: the first heads of the first groups, where every group has ``of``."""
    return np.arange(groups)[:, None] * of + np.arange(heads)


def save_padded(model: nn.Module, folder: str | Path) -> None:
    """Saves a cut model as a causal language model of uniform layers, which transformers loads with equal outputs.

    Every layer gets the size of the largest one (of GPT-2 all heads, for its config knows no other number); what it
    does not have is zero and changes no output. The config's ``decoder_widths`` say what it has.

    Args:
        model: its layers cut by :func:`slice_layer`.
    """
    config, kept = copy.deepcopy(model.config), widths(model)
    groups, heads, neurons = map(max, zip(*kept, strict=True))
    if config.model_type == "gpt2":
        config.n_inner = neurons
    else:
        config.head_dim = parts_of(layers_of(model)[0]).head_size
        groups, heads = _allowed(config, groups, heads)
        config.num_attention_heads, config.num_key_value_heads = groups * heads, groups
        config.intermediate_size = neurons
    config.decoder_widths = [list(sizes) for sizes in kept]
    large = CausalStates(AutoModelForCausalLM.from_config(config))
    for i, (small, sizes) in enumerate(zip(layers_of(model), kept, strict=True)):
        into = layers_of(large)[i]
        names = {id(module): name for name, module in into.named_modules()}
        for cut in cuts_of(into, first_heads(*sizes[:2], of=parts_of(into).group_heads), np.arange(sizes[2])):
            cut.fill(small.get_submodule(names[id(cut.linear)]))
    state, padded = model.state_dict(), large.state_dict()
    large.load_state_dict({n: t if t.shape == padded[n].shape else padded[n] for n, t in state.items()})
    large.lm.save_pretrained(folder)


def _allowed(config: Any, groups: int, heads: int) -> tuple[int, int]:
    """The fewest groups and heads of a group, no less than these, whose product divides the hidden size.

    Llama's config takes no others, though the model would; those of the original are always allowed.
    """
    most = config.num_key_value_heads, config.num_attention_heads // config.num_key_value_heads
    larger = [(g, h) for g in range(groups, most[0] + 1) for h in range(heads, most[1] + 1)]
    fitting = [(g, h) for g, h in larger if config.hidden_size % (g * h) == 0]
    return min(fitting or [most], key=lambda pair: pair[0] * pair[1])


def load_sliced(folder: str | Path) -> nn.Module:
    """An exported model with its absent heads and neurons cut out again: smaller and faster, the same outputs."""
    lm = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, weights_only=True)
    model = CausalStates(lm).eval()
    sources = layers_of(model)
    kept = getattr(model.config, "decoder_widths", None) or widths(model)
    cut = [
        slice_layer(layer, first_heads(groups, heads, parts_of(layer).group_heads), np.arange(neurons))
        for layer, (groups, heads, neurons) in zip(sources, kept, strict=True)
    ]
    replace_layers(model, cut, range(len(cut)))
    return model


def widths_of(architecture: Architecture) -> dict[int, tuple[int, int, int]]:
    """Groups, heads of a group and neurons of the layers that an architecture keeps, by their index."""
    values = architecture.values
    kept = [int(n[len("layer") : -len(".keep")]) for n, value in values.items() if n.endswith(".keep") and value]
    sizes = {i: [values.get(f"layer{i}.{n}", 1) for n in ("groups", "heads", "ffn")] for i in sorted(kept)}
    return {i: tuple(own) for i, own in sizes.items()}
