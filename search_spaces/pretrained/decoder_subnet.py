"""Sub-networks of a pretrained causal language model: which layers, how many heads and key-value groups, how wide."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import comb, prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nas_meta import Architecture, Choice, PluginOptions
from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import SMOLLM2
from nas_meta.tasks.pool import Tasks
from search_spaces.decoder_slicing import widths_of
from search_spaces.pretrained.base import PretrainedSubnet, counts, strongest
from search_spaces.pretrained.loading import load_pretrained_decoder, pretrained_config

if TYPE_CHECKING:
    from torch import nn

    from nas_meta import Supernet


class DecoderSubnetOptions(PluginOptions):
    """Options of ``decoder-subnet``."""

    model: str = Field(SMOLLM2, description="the pretrained causal LM: a folder, a hub name, or starter:smollm2")
    groups: list[float] = Field(
        [1.0, 0.67], min_length=1, description="shares of key-value groups a kept layer may have; elsewhere, of heads"
    )
    heads: list[float] = Field(
        [1.0, 0.67], min_length=1, description="shares of query heads a kept key-value group may have"
    )
    ffn: list[float] = Field(
        [1.0, 0.5], min_length=1, description="shares of feed-forward neurons a kept layer may have"
    )
    optional: list[int] | None = Field(
        None, description="numbers of the layers, from 0, that may be left out; by default all"
    )
    min_layers: int = Field(1, ge=1, description="fewest layers kept")
    max_layers: int | None = Field(None, ge=1, description="most layers kept; all by default")
    max_params: float | None = Field(None, gt=0, description="most parameters, embeddings included")
    importance_episodes: int = Field(10, ge=1, description="meta-train episodes that rank heads and neurons")


@dataclass(frozen=True)
class Sizes:
    """The pretrained model's; ``group_heads`` query heads share a key-value head, ``gates`` is 2 in a gated MLP."""

    layers: int
    groups: int
    group_heads: int
    head_size: int
    neurons: int
    hidden: int
    gates: int


class DecoderSubnet(PretrainedSubnet):
    """Sub-networks of a pretrained GPT-2, Llama or Qwen; weights are inherited and sliced.

    A model gives token states and keeps its head: :class:`search_spaces.pretrained.causal_lm.CausalStates`.
    """

    Options = DecoderSubnetOptions
    shares = ("groups", "heads", "ffn")

    @property
    def units(self) -> tuple[int, int, int]:
        return self.sizes.layers, self.sizes.groups * self.sizes.group_heads, self.sizes.neurons

    @cached_property
    def sizes(self) -> Sizes:
        """Read from the config of the pretrained model alone."""
        from search_spaces.decoder_slicing import FAMILIES

        config = self._config or pretrained_config(self.options.model)
        if config.model_type not in FAMILIES:
            raise ConfigError(
                f"space.model '{self.options.model}' is a {config.model_type} model; "
                f"expected one of {', '.join(FAMILIES)}"
            )
        heads, hidden = config.num_attention_heads, config.hidden_size
        groups = getattr(config, "num_key_value_heads", None) or heads
        fused = config.model_type == "gpt2"
        return Sizes(
            layers=config.num_hidden_layers,
            groups=groups,
            group_heads=heads // groups,
            head_size=getattr(config, "head_dim", None) or hidden // heads,
            neurons=(config.n_inner or 4 * hidden) if fused else config.intermediate_size,
            hidden=hidden,
            gates=1 if fused else 2,
        )

    def choices(self) -> Mapping[str, Choice]:
        s = self.sizes
        table: dict[str, Choice] = {}
        for i in range(s.layers):
            here = {f"layer{i}.keep": True}
            table[f"layer{i}.keep"] = Choice((True, False) if i in self._optional else (True,))
            table[f"layer{i}.groups"] = Choice(counts(self.options.groups, s.groups), when=here)
            if s.group_heads > 1:
                table[f"layer{i}.heads"] = Choice(counts(self.options.heads, s.group_heads), when=here)
            table[f"layer{i}.ffn"] = Choice(counts(self.options.ffn, s.neurons), when=here)
        return table

    def size(self) -> int:
        """Exact without ``max_params``: Σ over k of C(o, k) · (groups · heads · widths)^(L - o + k), o optional."""
        own = [len(self.table[f"layer0.{n}"].values) for n in ("groups", "heads", "ffn") if f"layer0.{n}" in self.table]
        free = len(self._optional)
        fixed, each = self.sizes.layers - free, prod(own)
        kept = range(max(self.options.min_layers - fixed, 0), self._most_layers() - fixed + 1)
        return sum(comb(free, k) * each ** (fixed + k) for k in kept)

    def prepare(self, tasks: Tasks, seed: int) -> None:
        from search_spaces.decoder_slicing import layers_of, parts_of
        from search_spaces.pretrained.importance import importance

        model = load_pretrained_decoder(self.options.model)
        parts = [parts_of(layer) for layer in layers_of(model)]
        pool = tasks["meta-train"]
        self._scores = importance(model, pool, self.options.importance_episodes, seed, parts=parts, pooling="last")
        self._config = model.config
        # Arrays, not tensors: Ray then shares one copy between the workers of a node.
        self._weights = {name: p.detach().numpy() for name, p in model.named_parameters()}

    def build(self, architecture: Architecture) -> nn.Module:
        from search_spaces.decoder_slicing import layers_of, replace_layers, slice_layer

        full, kept = self._full, widths_of(architecture)
        sources = list(layers_of(full))
        head_scores, neuron_scores = self._ranked()
        cut = [
            slice_layer(
                sources[i], self._strongest_heads(head_scores[i], groups, heads), strongest(neuron_scores[i], n)
            )
            for i, (groups, heads, n) in kept.items()
        ]
        # Everything but the layers is copied; the layers are copied one by one, already smaller.
        model = copy.deepcopy(full, {id(layer): layer for layer in sources})
        replace_layers(model, cut, list(kept))
        return model

    def supernet(self) -> Supernet:
        from search_spaces.pretrained.decoder_elastic import ElasticDecoder

        s, (head_scores, neuron_scores) = self.sizes, self._ranked()
        orders = []
        for by_group in head_scores.reshape(s.layers, s.groups, -1):
            groups = np.argsort(-by_group.sum(1), kind="stable")
            orders.append(np.stack([g * s.group_heads + np.argsort(-by_group[g], kind="stable") for g in groups]))
        return ElasticDecoder(self.reference(), orders, neuron_scores)

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """A standard folder that ``AutoModelForCausalLM.from_pretrained`` loads with transformers alone.

        transformers has no per-layer sizes for these families: see :func:`search_spaces.decoder_slicing.save_padded`.
        """
        from search_spaces.decoder_slicing import save_padded

        save_padded(model, folder)

    def load(self, folder: Path) -> nn.Module:
        from search_spaces.decoder_slicing import load_sliced

        return load_sliced(folder)

    def count_params(self, architecture: Architecture) -> int:
        """Parameters of an architecture, counted from the shapes of the pretrained weights, without a build."""
        s, kept = self.sizes, widths_of(architecture)
        total = sum(w.size for w in self._weights.values())
        for i in range(s.layers):
            own = {n: w for name, w in self._weights.items() if (n := own_name(name, i))}
            if i not in kept:
                total -= sum(w.size for w in own.values())
                continue
            groups, heads, neurons = kept[i]

            def rows(*names: str, own: Mapping[str, np.ndarray] = own) -> int:
                """Weights and biases that one output of each of these has."""
                return sum(s.hidden + (f"{name}.bias" in own) for name in names)

            if s.gates == 1:
                query, pair, up = rows("attn.c_attn"), 2 * rows("attn.c_attn"), rows("mlp.c_fc")
            else:
                query, pair = rows("self_attn.q_proj"), rows("self_attn.k_proj", "self_attn.v_proj")
                up = rows("mlp.gate_proj", "mlp.up_proj")
            # Behind a head or a neuron there is a column, which has no bias.
            total -= (s.groups * s.group_heads - groups * heads) * s.head_size * (query + s.hidden)
            total -= (s.groups - groups) * s.head_size * pair + (s.neurons - neurons) * (up + s.hidden)
        return total

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Parameters, and FLOPs: 2 · tokens · (weights of every projection) + 4 · tokens² · width of the query heads.

        Without the output projection, which no embedding needs.
        """
        if self._weights is None:
            return {}
        s, flops = self.sizes, 0
        for groups, heads, neurons in widths_of(architecture).values():
            query, pair = groups * heads * s.head_size, 2 * groups * s.head_size
            projections = s.hidden * (2 * query + pair + (s.gates + 1) * neurons)
            flops += 2 * tokens * projections + 4 * tokens**2 * query
        return {"params": self.count_params(architecture), "flops": flops}

    @cached_property
    def _full(self) -> nn.Module:
        import torch
        from transformers import AutoModelForCausalLM

        from search_spaces.pretrained.causal_lm import CausalStates

        if self._weights is None:
            return load_pretrained_decoder(self.options.model)
        model = CausalStates(AutoModelForCausalLM.from_config(self._config))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.tensor(self._weights[name]))
        return model.eval()

    def _strongest_heads(self, scores: np.ndarray, groups: int, heads: int) -> np.ndarray:
        """``[groups, heads]``: of the groups whose heads matter most together, the heads that matter most."""
        by_group = scores.reshape(self.sizes.groups, -1)
        kept = strongest(by_group.sum(1), groups)
        return np.stack([g * self.sizes.group_heads + strongest(by_group[g], heads) for g in kept])

    @cached_property
    def _optional(self) -> frozenset[int]:
        layers = self.sizes.layers
        given = range(layers) if self.options.optional is None else self.options.optional
        wrong = [i for i in given if not 0 <= i < layers]
        if wrong:
            raise ConfigError(f"space.optional has the layer {wrong[0]}; expected numbers from 0 to {layers - 1}")
        return frozenset(given)


def own_name(name: str, layer: int) -> str:
    """The part of a parameter's name behind that of a layer; empty where it is of something else."""
    found = re.fullmatch(rf"lm\.\w+\.(?:h|layers)\.{layer}\.(.+)", name)
    return found[1] if found else ""
