"""Sub-networks of a pretrained BERT-family encoder: which layers, how many heads, how wide the feed-forward."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from nas_meta import Architecture, Choice, PluginOptions
from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import MINILM, model_path
from nas_meta.tasks.pool import Tasks
from search_spaces.pretrained.base import PretrainedSubnet, counts, strongest
from search_spaces.pretrained.loading import load_pretrained

if TYPE_CHECKING:
    from torch import nn

    from nas_meta import Supernet


class BertSubnetOptions(PluginOptions):
    """Options of ``bert-subnet``."""

    model: str = Field(MINILM, description="the pretrained encoder: a folder, a hub name, or starter:minilm")
    heads: list[float] = Field([1.0, 0.5], min_length=1, description="shares of attention heads a kept layer may have")
    ffn: list[float] = Field(
        [1.0, 0.5, 0.25], min_length=1, description="shares of feed-forward neurons a kept layer may have"
    )
    min_layers: int = Field(1, ge=1, description="fewest layers kept")
    max_layers: int | None = Field(None, ge=1, description="most layers kept; all by default")
    max_params: float | None = Field(None, gt=0, description="most parameters, embeddings included")
    bins: int | None = Field(
        None, ge=2, description="random architectures are even over so many bins of parameters; by default over choices"
    )
    importance: Literal["taylor", "wanda", "magnitude"] = Field(
        "taylor",
        description="what ranks heads and neurons: Taylor scores of the loss, Wanda's weights times activations, or "
        "the norms of weights",
    )
    importance_episodes: int = Field(20, ge=1, description="meta-train episodes that rank heads and neurons")


class BertSubnet(PretrainedSubnet):
    """Sub-networks of a pretrained BERT, MiniLM, RoBERTa or DistilBERT; weights are inherited and sliced."""

    Options = BertSubnetOptions
    shares = ("heads", "ffn")

    def __init__(self, options: BertSubnetOptions | None = None):
        super().__init__(options)
        self.draws = self.options.bins is not None

    @property
    def units(self) -> tuple[int, int, int]:
        return self.dimensions["layers"], self.dimensions["heads"], self.dimensions["neurons"]

    @cached_property
    def dimensions(self) -> dict[str, int]:
        """Layers, heads, neurons and hidden size of the pretrained model, read from its config alone."""
        path = Path(model_path(self.options.model)) / "config.json"
        if path.is_file():
            try:
                raw = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError, RecursionError) as error:
                raise ConfigError(f"{path} is not JSON with the sizes of a model") from error
        else:
            from transformers import AutoConfig

            try:
                raw = AutoConfig.from_pretrained(self.options.model, trust_remote_code=False).to_dict()
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"space.model '{self.options.model}' is neither a folder with a config.json "
                    "nor a hub model that can be reached"
                ) from error
        names = {
            "layers": ("num_hidden_layers", "n_layers"),
            "heads": ("num_attention_heads", "n_heads"),
            "neurons": ("intermediate_size", "hidden_dim"),
            "hidden": ("hidden_size", "dim"),
        }
        try:
            found = {n: next(raw[k] for k in keys if k in raw) for n, keys in names.items()}
        except StopIteration as error:
            raise ConfigError(
                f"space.model '{self.options.model}' is a {raw.get('model_type')} model; "
                "expected a BERT-family encoder (BERT, MiniLM, RoBERTa, DistilBERT)"
            ) from error
        for name, size in found.items():
            if not isinstance(size, int) or not 1 <= size <= 100_000:
                raise ConfigError(f"space.model '{self.options.model}' has {size!r} {name}; expected a number from 1")
        return found

    def choices(self) -> Mapping[str, Choice]:
        d = self.dimensions
        heads = counts(self.options.heads, d["heads"])
        neurons = counts(self.options.ffn, d["neurons"])
        table: dict[str, Choice] = {}
        for i in range(d["layers"]):
            table[f"layer{i}.keep"] = Choice((True, False))
            table[f"layer{i}.heads"] = Choice(heads, when={f"layer{i}.keep": True})
            table[f"layer{i}.ffn"] = Choice(neurons, when={f"layer{i}.keep": True})
        return table

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        """Uniform over the choices; with ``bins`` over bins of parameters, once the space is prepared."""
        if self.options.bins is None or self._weights is None:
            return super().sample(rng, tries)
        from search_spaces.pretrained.param_bins import sample_by_size

        draw = partial(super().sample, rng, tries)
        return sample_by_size(self, draw, self.count_params, self.bin_edges, rng)

    @cached_property
    def bin_edges(self) -> np.ndarray:
        """``[bins + 1]``: parameters at which one bin ends and the next begins, from the smallest to the largest."""
        ends = []
        for value, layers in ((-1, self.options.min_layers), (0, self._most_layers())):
            kept = {n: c.values[value] for n, c in self.table.items()}
            kept |= {f"layer{i}.keep": i < layers for i in range(self.dimensions["layers"])}
            ends.append(self.count_params(self.canonical(kept)))
        highest = ends[1] if self.options.max_params is None else min(ends[1], self.options.max_params)
        return np.linspace(ends[0], max(highest, ends[0]), self.options.bins + 1)

    def size(self) -> int:
        """Exact without ``max_params``: Σ over kept-layer counts k of C(L, k) · (heads · widths)^k."""
        widths = len(self.options.heads) * len(self.options.ffn)
        layers = self.dimensions["layers"]
        sets = range(self.options.min_layers, self._most_layers() + 1)
        return sum(sum(1 for _ in combinations(range(layers), k)) * widths**k for k in sets)

    def prepare(self, tasks: Tasks, seed: int) -> None:
        from search_spaces.pretrained.importance import importance
        from search_spaces.slicing import layers_of

        model = load_pretrained(self.options.model)
        layers_of(model)  # refuses other families before anything is computed
        o = self.options
        self._scores = importance(model, tasks["meta-train"], o.importance_episodes, seed, o.importance)
        self._config = model.config
        # Arrays, not tensors: Ray then shares one copy between the workers of a node.
        self._weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}

    def build(self, architecture: Architecture) -> nn.Module:
        from search_spaces.slicing import layers_of, replace_layers, slice_layer

        full = self._full
        sources = list(layers_of(full))
        head_scores, neuron_scores = self._ranked()
        cut = [
            slice_layer(
                sources[i],
                strongest(head_scores[i], architecture[f"layer{i}.heads"]),
                strongest(neuron_scores[i], architecture[f"layer{i}.ffn"]),
            )
            for i in self.kept_layers(architecture)
        ]
        # Everything but the layers is copied; the layers are copied one by one, already smaller.
        memo = {id(layer): layer for layer in sources}
        model = copy.deepcopy(full, memo)
        replace_layers(model, cut)
        return model

    def supernet(self) -> Supernet:
        from search_spaces.pretrained.bert_elastic import ElasticEncoder

        return ElasticEncoder(self.reference(), *self._ranked())

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """A standard folder that ``AutoModel.from_pretrained`` loads with transformers alone.

        transformers has no per-layer sizes for these families, so heads and neurons that are absent are stored as
        zeros: the outputs are the same. ``search_spaces.slicing.load_sliced`` cuts them out again.
        """
        from search_spaces.slicing import save_padded

        save_padded(model, folder)

    def width(self, architecture: Architecture) -> int:
        """The length of an embedding."""
        return self.dimensions["hidden"]

    def count_params(self, architecture: Architecture) -> int:
        """Parameters of an architecture, counted from the shapes of the pretrained weights, without a build."""
        d = self.dimensions
        head_size = d["hidden"] // d["heads"]
        total = sum(w.size for w in self._weights.values())
        for i in range(d["layers"]):
            if architecture[f"layer{i}.keep"]:
                absent_heads = d["heads"] - architecture[f"layer{i}.heads"]
                absent_neurons = d["neurons"] - architecture[f"layer{i}.ffn"]
                # A head: rows and biases of query, key and value, columns behind; a neuron: row, bias, column.
                total -= absent_heads * head_size * (4 * d["hidden"] + 3) + absent_neurons * (2 * d["hidden"] + 1)
            else:
                total -= sum(w.size for name, w in self._weights.items() if f".layer.{i}." in f".{name}")
        return total

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Parameters, and FLOPs: 2 · tokens · (weights of every projection) + 4 · tokens² · width of the heads."""
        if self._weights is None:
            return {}
        d = self.dimensions
        flops = sum(2 * w.size for name, w in self._weights.items() if name == "pooler.dense.weight")
        for i in self.kept_layers(architecture):
            width = architecture[f"layer{i}.heads"] * (d["hidden"] // d["heads"])
            projections = 4 * d["hidden"] * width + 2 * d["hidden"] * architecture[f"layer{i}.ffn"]
            flops += 2 * tokens * projections + 4 * tokens**2 * width
        return {"params": self.count_params(architecture), "flops": flops}

    @cached_property
    def _full(self) -> nn.Module:
        import torch
        from transformers import AutoModel

        if self._weights is None:
            return load_pretrained(self.options.model)
        model = AutoModel.from_config(self._config)
        model.load_state_dict({name: torch.tensor(array) for name, array in self._weights.items()})
        return model
