"""Search space ``bert-subnet``: which layers, heads and feed-forward neurons of a pretrained encoder to keep."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cached_property, partial
from math import comb, prod
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from nas_meta import Architecture, Choice, PluginOptions
from nas_meta.core.paths import ModelName
from nas_meta.errors import ConfigError
from nas_meta.models.families import check_family
from nas_meta.tasks.packaged_models import MINILM, model_path, refuse_adapter
from nas_meta.tasks.pool import Tasks
from search_spaces.pretrained.base import PretrainedSubnet, strongest, unit_counts
from search_spaces.pretrained.layer_spread import spread_layers
from search_spaces.pretrained.loading import LAYERS, load_pretrained, model_from_arrays

if TYPE_CHECKING:
    from torch import nn

    from nas_meta import Supernet


class BertSubnetOptions(PluginOptions):
    """Options of the search space ``bert-subnet``."""

    model: ModelName = Field(MINILM, description="pretrained encoder: a folder, a hub name, or starter:minilm")
    heads: list[float] = Field(
        [1.0, 0.75, 0.5], min_length=1, description="candidate shares of attention heads that a kept layer keeps"
    )
    ffn: list[float] = Field(
        [1.0, 0.75, 0.5, 0.25],
        min_length=1,
        description="candidate shares of feed-forward neurons that a kept layer keeps",
    )
    min_layers: int = Field(1, ge=1, description="minimum number of layers to keep")
    max_layers: int | None = Field(None, ge=1, description="maximum number of layers to keep; all layers by default")
    keep: list[int] = Field([], description="layers that every architecture keeps, counted from 0; by default none")
    max_params: float | None = Field(
        None, gt=0, description="maximum number of parameters, embeddings included; no limit by default"
    )
    bins: int | None = Field(
        None,
        ge=2,
        description="number of equally wide ranges of parameter counts over which random architectures are spread "
        "evenly; by default every choice is uniform",
    )
    importance: Literal["taylor", "wanda", "magnitude"] = Field(
        "taylor",
        description="how heads and neurons are ranked: taylor (effect on the loss), wanda (weights times activations) "
        "or magnitude (norm of the weights)",
    )
    importance_episodes: int = Field(
        20, ge=1, description="number of meta-train episodes on which heads and neurons are ranked"
    )


class BertSubnet(PretrainedSubnet):
    """Sub-networks of a pretrained encoder such as BERT, MiniLM, MPNet or DeBERTa, which inherit its weights.

    Args:
        options: Model, shares and limits; the defaults of ``BertSubnetOptions`` if None.

    Raises:
        ConfigError: A share is not above 0 and at most 1.
    """

    Options = BertSubnetOptions
    shares = ("heads", "ffn")

    def __init__(self, options: BertSubnetOptions | None = None):
        super().__init__(options)
        self.draws = self.options.bins is not None

    @property
    def units(self) -> tuple[int, int, int]:
        return self.dimensions["layers"], self.dimensions["heads"], self.dimensions["neurons"]

    @property
    def whole_layer(self) -> Mapping[str, int]:
        return {"heads": self.dimensions["heads"], "ffn": self.dimensions["neurons"]}

    @cached_property
    def dimensions(self) -> dict[str, int]:
        """Numbers of ``layers``, ``heads`` and ``neurons`` and the ``hidden`` size, read from the model's config.

        Raises:
            ConfigError: The config cannot be read, or is not that of a supported encoder.
        """
        refuse_adapter(self.options.model, "space.model")
        path = Path(model_path(self.options.model)) / "config.json"
        if path.is_file():
            try:
                raw = dict(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError, RecursionError) as error:
                raise ConfigError(f"{path} is not a model config; expected a JSON object with its sizes") from error
        else:
            from transformers import AutoConfig

            try:
                raw = AutoConfig.from_pretrained(self.options.model, trust_remote_code=False).to_dict()
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"space.model '{self.options.model}' is neither a folder with a config.json "
                    "nor a reachable model on the Hugging Face hub"
                ) from error
        names = {
            "layers": ("num_hidden_layers", "n_layers"),
            "heads": ("num_attention_heads", "n_heads"),
            "neurons": ("intermediate_size", "hidden_dim"),
            "hidden": ("hidden_size", "dim"),
        }
        if LAYERS in raw:
            raise ConfigError(
                f"space.model '{self.options.model}' has layers of different sizes; expected a model with equal layers"
            )
        check_family(SimpleNamespace(**raw), f"space.model '{self.options.model}' is a {raw.get('model_type')} model")
        try:
            sizes = {n: next(raw[k] for k in keys if k in raw) for n, keys in names.items()}
        except StopIteration as error:
            raise ConfigError(f"{path} lacks a size; expected {', '.join(k for k, *_ in names.values())}") from error
        for name, size in sizes.items():
            if not isinstance(size, int) or not 1 <= size <= 100_000:
                raise ConfigError(
                    f"space.model '{self.options.model}' has {size!r} as {' or '.join(names[name])}; "
                    "expected an integer from 1 to 100,000"
                )
        return sizes

    def choices(self) -> Mapping[str, Choice]:
        d = self.dimensions
        heads = unit_counts(self.options.heads, d["heads"])
        neurons = unit_counts(self.options.ffn, d["neurons"])
        table: dict[str, Choice] = {}
        for i in range(d["layers"]):
            table[f"layer{i}.keep"] = Choice((True,) if i in self.fixed_layers else (True, False))
            table[f"layer{i}.heads"] = Choice(heads, when={f"layer{i}.keep": True})
            table[f"layer{i}.ffn"] = Choice(neurons, when={f"layer{i}.keep": True})
        return table

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        """Sample every choice uniformly, or with ``bins`` and after :meth:`prepare` evenly over parameter counts."""
        if self.options.bins is None or self._weights is None:
            return super().sample(rng, tries)
        from search_spaces.pretrained.param_bins import sample_by_size

        draw = partial(super().sample, rng, tries)
        return sample_by_size(self, draw, self.count_params, self.bin_edges, rng)

    @cached_property
    def bin_edges(self) -> np.ndarray:
        """Edges of the bins in parameters, ``[bins + 1]``, from the smallest to the largest architecture."""
        ends = []
        for value, layers in ((-1, self._least_layers()), (0, self._most_layers())):
            values = {n: c.values[value] for n, c in self.table.items()}
            values |= self._keeping(spread_layers(self.dimensions["layers"], layers, self.fixed_layers))
            ends.append(self.count_params(self.canonical(values)))
        highest = ends[1] if self.options.max_params is None else min(ends[1], self.options.max_params)
        return np.linspace(ends[0], max(highest, ends[0]), self.options.bins + 1)

    def size(self) -> int:
        """Return the number of architectures, exact if ``max_params`` is not set.

        It is Σ_k C(L - f, k - f) · (heads · widths)^k, where k of the L layers are kept, each with its own heads and
        width, and f of them are kept in every architecture.
        """
        fixed, layers = len(self.fixed_layers), self.dimensions["layers"]
        widths = prod(len(self.table["layer0." + name].values) for name in ("heads", "ffn"))
        kept = range(self._least_layers(), self._most_layers() + 1)
        return sum(comb(layers - fixed, k - fixed) * widths**k for k in kept)

    def prepare(self, tasks: Tasks, seed: int) -> None:
        from nas_meta.models.token_checks import check_tokens
        from search_spaces.pretrained.importance import importance
        from search_spaces.pretrained.layer_counts import counts_of
        from search_spaces.slicing import layers_of

        model = load_pretrained(self.options.model)
        layers_of(model)  # raises for other families before anything is computed
        check_tokens(model, tasks, f"space.model '{self.options.model}'")
        o = self.options
        self._scores = importance(model, tasks["meta-train"], o.importance_episodes, seed, o.importance)
        self._config, self._counts = model.config, counts_of(model)
        # Arrays instead of tensors, so that Ray shares one copy between the workers of a node.
        self._weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}

    def build(self, architecture: Architecture) -> nn.Module:
        from search_spaces.pretrained.bert_elastic import widths_of
        from search_spaces.slicing import layers_of, replace_layers, slice_layer

        full, widths = self._full, widths_of(architecture)
        sources, family = list(layers_of(full)), check_family(full.config, f"space.model is a {type(full).__name__}")
        head_scores, neuron_scores = self._ranked()
        sliced = [
            slice_layer(
                sources[i], family, strongest(head_scores[i], heads)[:, None], strongest(neuron_scores[i], neurons)
            )
            for i, (heads, _, neurons) in widths.items()
        ]
        # Copy everything but the layers, which the memo excludes; the sliced copies take their place.
        memo = {id(layer): layer for layer in sources}
        model = copy.deepcopy(full, memo)
        replace_layers(model, sliced, list(widths))
        return model

    def supernet(self) -> Supernet:
        from search_spaces.pretrained.bert_elastic import ElasticEncoder

        return ElasticEncoder(self.reference(), *self._ranked())

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Write a folder that ``AutoModel.from_pretrained`` loads without nas-meta, in the true size of the model.

        If a config of transformers cannot describe the layers, the folder includes the code that loads them, which
        needs ``trust_remote_code=True``; see :func:`search_spaces.pretrained.subnet_folder.save_subnet`.
        """
        from search_spaces.pretrained.subnet_folder import save_subnet

        save_subnet(model, folder)

    def load(self, folder: Path) -> nn.Module:
        from search_spaces.pretrained.subnet_folder import load_subnet

        return load_subnet(folder)

    def width(self, architecture: Architecture) -> int:
        """Return the width of an embedding.

        Args:
            architecture: An architecture of the space.

        Returns:
            The hidden size of the pretrained model.
        """
        return self.dimensions["hidden"]

    def count_params(self, architecture: Architecture) -> int:
        from search_spaces.pretrained.bert_elastic import widths_of

        return self._counts.count_params(widths_of(architecture))

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Count parameters and FLOPs from the sizes alone; nothing before :meth:`prepare`.

        FLOPs per layer are 2 · tokens · (weights of every projection) + 4 · tokens² · (width of all kept heads), and in
        DeBERTa those of relative positions. A pooler adds 2 · (its weights), because it is computed for the first token
        only.
        """
        from search_spaces.pretrained.bert_elastic import widths_of

        if self._weights is None:
            return {}
        return {
            "params": self.count_params(architecture),
            "flops": self._counts.count_flops(widths_of(architecture), tokens),
        }

    def _pretrained(self) -> nn.Module:
        if self._weights is None:
            return load_pretrained(self.options.model)
        return model_from_arrays(self._config, self._weights)
