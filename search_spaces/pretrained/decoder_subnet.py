"""Search space ``decoder-subnet``: which layers, heads and neurons of a pretrained causal language model to keep."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import comb, prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nas_meta import Architecture, Choice, PluginOptions
from nas_meta.core.paths import ModelName
from nas_meta.models.families import check_family
from nas_meta.tasks.packaged_models import SMOLLM2
from nas_meta.tasks.pool import Tasks
from search_spaces.decoder_slicing import widths_of
from search_spaces.pretrained.base import PretrainedSubnet, strongest, unit_counts
from search_spaces.pretrained.loading import load_pretrained_decoder, pretrained_config

if TYPE_CHECKING:
    from torch import nn

    from nas_meta import Supernet


class DecoderSubnetOptions(PluginOptions):
    """Options of the search space ``decoder-subnet``."""

    model: ModelName = Field(
        SMOLLM2, description="pretrained causal language model: a folder, a hub name, or starter:smollm2"
    )
    groups: list[float] = Field(
        [1.0, 0.67],
        min_length=1,
        description="candidate shares of key-value groups that a kept layer keeps; shares of heads in models without "
        "grouped-query attention",
    )
    heads: list[float] = Field(
        [1.0, 0.67],
        min_length=1,
        description="candidate shares of query heads that each kept key-value group keeps; unused without "
        "grouped-query attention",
    )
    ffn: list[float] = Field(
        [1.0, 0.5], min_length=1, description="candidate shares of feed-forward neurons that a kept layer keeps"
    )
    optional: list[int] | None = Field(
        None, description="layers that may be removed, counted from 0; all layers by default"
    )
    min_layers: int = Field(1, ge=1, description="minimum number of layers to keep")
    max_layers: int | None = Field(None, ge=1, description="maximum number of layers to keep; all layers by default")
    keep: list[int] = Field([], description="layers that every architecture keeps, counted from 0; by default none")
    max_params: float | None = Field(
        None, gt=0, description="maximum number of parameters, embeddings included; no limit by default"
    )
    importance_episodes: int = Field(
        10, ge=1, description="number of meta-train episodes on which heads and neurons are ranked"
    )


@dataclass(frozen=True)
class Sizes:
    """Sizes of a pretrained causal language model.

    Attributes:
        layers: Number of layers.
        groups: Number of key-value heads per layer.
        group_heads: Number of query heads that share one key-value head.
        neurons: Number of feed-forward neurons per layer.
    """

    layers: int
    groups: int
    group_heads: int
    neurons: int


class DecoderSubnet(PretrainedSubnet):
    """Sub-networks of a pretrained GPT-2, Llama, Mistral, Qwen, Gemma, GPT-NeoX or OPT, which inherit its weights.

    Models return token states and keep their output layer: :class:`search_spaces.pretrained.causal_lm.CausalStates`.

    Args:
        options: Model, shares and limits; the defaults of ``DecoderSubnetOptions`` if None.

    Raises:
        ConfigError: A share is not above 0 and at most 1.
    """

    Options = DecoderSubnetOptions
    shares = ("groups", "heads", "ffn")

    @property
    def units(self) -> tuple[int, int, int]:
        return self.sizes.layers, self.sizes.groups * self.sizes.group_heads, self.sizes.neurons

    @property
    def whole_layer(self) -> Mapping[str, int]:
        s = self.sizes
        whole = {"groups": s.groups, "heads": s.group_heads, "ffn": s.neurons}
        return {name: size for name, size in whole.items() if f"layer0.{name}" in self.table}

    @cached_property
    def sizes(self) -> Sizes:
        """Sizes of the pretrained model, read from its config.

        Raises:
            ConfigError: The config cannot be loaded, or the model belongs to none of the supported families.
        """
        config = self._config or pretrained_config(self.options.model)
        family = check_family(config, f"space.model '{self.options.model}' is a {config.model_type} model", causal=True)
        heads = config.num_attention_heads
        groups = getattr(config, "num_key_value_heads", None) or heads
        # GPT-2 leaves its number of neurons out if it is four times the width.
        neurons = getattr(config, family.neurons_key) or 4 * config.hidden_size
        return Sizes(config.num_hidden_layers, groups, heads // groups, neurons)

    def choices(self) -> Mapping[str, Choice]:
        s = self.sizes
        table: dict[str, Choice] = {}
        for i in range(s.layers):
            when_kept = {f"layer{i}.keep": True}
            table[f"layer{i}.keep"] = Choice((True,) if i in self.fixed_layers else (True, False))
            table[f"layer{i}.groups"] = Choice(unit_counts(self.options.groups, s.groups), when=when_kept)
            if s.group_heads > 1:
                table[f"layer{i}.heads"] = Choice(unit_counts(self.options.heads, s.group_heads), when=when_kept)
            table[f"layer{i}.ffn"] = Choice(unit_counts(self.options.ffn, s.neurons), when=when_kept)
        return table

    def size(self) -> int:
        """Return the number of architectures, exact if ``max_params`` is not set.

        It is Σ_k C(L - f, k - f) · (groups · heads · widths)^k, where k of the L layers are kept, f of them in every
        architecture.
        """
        names = [f"layer0.{n}" for n in ("groups", "heads", "ffn")]
        options = [len(self.table[name].values) for name in names if name in self.table]
        fixed, per_layer = len(self.fixed_layers), prod(options)
        kept = range(self._least_layers(), self._most_layers() + 1)
        return sum(comb(self.sizes.layers - fixed, k - fixed) * per_layer**k for k in kept)

    def prepare(self, tasks: Tasks, seed: int) -> None:
        from nas_meta.models.token_checks import check_tokens
        from search_spaces.pretrained.importance import importance
        from search_spaces.pretrained.layer_counts import counts_of

        model = load_pretrained_decoder(self.options.model)
        check_tokens(model, tasks, f"space.model '{self.options.model}'")
        pool = tasks["meta-train"]
        self._scores = importance(model, pool, self.options.importance_episodes, seed, pooling="last")
        self._config, self._counts = model.config, counts_of(model)
        # Arrays instead of tensors, so that Ray shares one copy between the workers of a node.
        self._weights = {name: p.detach().numpy() for name, p in model.named_parameters()}

    def build(self, architecture: Architecture) -> nn.Module:
        from search_spaces.slicing import layers_of, replace_layers, slice_layer

        full, widths = self._full, widths_of(architecture)
        sources = list(layers_of(full))
        family = check_family(full.config, "space.model", causal=True)
        head_scores, neuron_scores = self._ranked()
        sliced = [
            slice_layer(
                sources[i], family, self._strongest_heads(head_scores[i], groups, heads), strongest(neuron_scores[i], n)
            )
            for i, (groups, heads, n) in widths.items()
        ]
        # Copy everything but the layers, which the memo excludes; the sliced copies take their place.
        model = copy.deepcopy(full, {id(layer): layer for layer in sources})
        replace_layers(model, sliced, list(widths))
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
        """Write a folder that ``AutoModelForCausalLM.from_pretrained`` loads without nas-meta, in its true size.

        If a config of transformers cannot describe the layers, the folder includes the code that loads them, which
        needs ``trust_remote_code=True``; see :func:`search_spaces.pretrained.subnet_folder.save_subnet`.
        """
        from search_spaces.pretrained.subnet_folder import save_subnet

        save_subnet(model, folder)

    def load(self, folder: Path) -> nn.Module:
        from search_spaces.decoder_slicing import load_sliced

        return load_sliced(folder)

    def count_params(self, architecture: Architecture) -> int:
        return self._counts.count_params(widths_of(architecture))

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Count parameters and FLOPs from the sizes alone; nothing before :meth:`prepare`.

        FLOPs per layer are 2 · tokens · (weights of every projection) + 4 · tokens² · (width of all kept query heads).
        The output layer is left out, because embeddings do not use it.
        """
        if self._weights is None:
            return {}
        flops = self._counts.count_flops(widths_of(architecture), tokens)
        return {"params": self.count_params(architecture), "flops": flops}

    def _pretrained(self) -> nn.Module:
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
        """Return the top heads of the groups with the highest total score, ``[groups, heads]``."""
        by_group = scores.reshape(self.sizes.groups, -1)
        top_groups = strongest(by_group.sum(1), groups)
        return np.stack([g * self.sizes.group_heads + strongest(by_group[g], heads) for g in top_groups])

    @cached_property
    def fixed_layers(self) -> frozenset[int]:
        if self.options.optional is None:
            return super().fixed_layers
        layers = range(self.sizes.layers)
        return super().fixed_layers | set(layers).difference(self._layers_of("optional"))
