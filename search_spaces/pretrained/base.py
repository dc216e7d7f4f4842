"""Base of the search spaces ``bert-subnet`` and ``decoder-subnet``, whose candidates are sub-networks.

A sub-network keeps some layers of a pretrained model and, in each of them, the most important heads and neurons.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta import Architecture, PluginOptions, SearchSpace
from nas_meta.errors import ConfigError
from search_spaces.pretrained.layer_spread import spread_layers

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.pretrained.layer_counts import ModelCounts


class PretrainedSubnet(SearchSpace):
    """Base class of search spaces over the sub-networks of the pretrained model ``space.model``.

    A choice ``layer0.keep`` decides whether a layer is kept; further choices decide how many of its units are kept.
    The options of a subclass must have ``model``, ``keep``, ``min_layers``, ``max_layers``, ``max_params`` and the
    options named in :attr:`shares`.

    Args:
        options: Options of the space; its defaults if None.

    Raises:
        ConfigError: A share is not above 0 and at most 1.
    """

    pretrained = True
    shares: tuple[str, ...]
    """Names of the options that list shares of units."""

    def __init__(self, options: PluginOptions | None = None):
        super().__init__(options)
        self.tokenizer = self.options.model
        # Set by prepare().
        self._weights: dict[str, np.ndarray] | None = None
        self._scores: tuple[np.ndarray, np.ndarray] | None = None
        self._config: Any = None
        for name in self.shares:
            wrong = [s for s in getattr(self.options, name) if not 0 < s <= 1]
            if wrong:
                raise ConfigError(f"space.{name} has the share {wrong[0]}; expected shares above 0 and at most 1")

    @property
    @abstractmethod
    def units(self) -> tuple[int, int, int]:
        """Numbers of layers, of heads per layer and of neurons per layer in the pretrained model."""

    @abstractmethod
    def count_params(self, architecture: Architecture) -> int:
        """Count the parameters of an architecture from the shapes of the pretrained weights, without building it.

        Call it only after :meth:`prepare`.

        Args:
            architecture: An architecture of the space.

        Returns:
            Number of parameters, embeddings included.
        """

    @property
    @abstractmethod
    def whole_layer(self) -> Mapping[str, int]:
        """The sizes of a layer of the pretrained model, by the last part of the names of its choices."""

    @cached_property
    def fixed_layers(self) -> frozenset[int]:
        """The layers that every architecture keeps.

        Raises:
            ConfigError: The model has no such layer, or they are more than ``max_layers``.
        """
        fixed = self._layers_of("keep")
        if len(fixed) > self._most_layers():
            raise ConfigError(
                f"space.keep has {len(fixed)} layers, but space.max_layers is {self._most_layers()}; expected at most "
                f"{self._most_layers()} layers in space.keep"
            )
        return fixed

    def starts(self) -> Sequence[Mapping[str, Any]]:
        """Return which layers the first architectures keep: for every number of layers, evenly spread over the depth.

        The first and the last layer are among them, because sub-networks without one of these are rarely good.
        """
        numbers = range(self._most_layers(), self._least_layers() - 1, -1)
        return [self._keeping(spread_layers(self.units[0], number, self.fixed_layers)) for number in numbers]

    def _keeping(self, layers: Collection[int]) -> dict[str, bool]:
        """Return the choices that keep the given layers only."""
        return {f"layer{i}.keep": i in layers for i in range(self.units[0])}

    def _layers_of(self, option: str) -> frozenset[int]:
        """Return the layers that an option lists, if the model has them."""
        layers, listed = self.units[0], getattr(self.options, option)
        if wrong := [i for i in listed if not 0 <= i < layers]:
            raise ConfigError(f"space.{option} has the layer {wrong[0]}; expected layers from 0 to {layers - 1}")
        return frozenset(listed)

    def comparisons(self, architecture: Architecture) -> Mapping[str, Architecture]:
        """Return the whole model, and as many first layers as the architecture keeps, in the sizes of the kept ones.

        The i-th of the first layers has as many heads and neurons as the i-th layer that the architecture keeps, so the
        truncated model has the size and the compute of the architecture.

        Args:
            architecture: An architecture of the space.

        Returns:
            Architectures by name, without those that equal the architecture; their sizes may be outside of the choices.
        """
        parts = list(self.whole_layer)
        kept = [{name: architecture[f"layer{i}.{name}"] for name in parts} for i in self.kept_layers(architecture)]
        first = "the first layer" if len(kept) == 1 else f"the first {len(kept)} layers"
        rows = {
            "the whole model trained alike": self._stacked([self.whole_layer] * self.units[0]),
            f"{first} trained alike": self._stacked(kept),
        }
        return {name: row for name, row in rows.items() if row != architecture}

    def _stacked(self, sizes: Sequence[Mapping[str, Any]]) -> Architecture:
        """Return the architecture that keeps the first layers, in the given sizes."""
        values = self._keeping(range(len(sizes)))
        named = {f"layer{i}.{name}": value for i, layer in enumerate(sizes) for name, value in layer.items()}
        return Architecture({**values, **named})

    def kept_layers(self, architecture: Architecture) -> list[int]:
        """Return the indices of the pretrained layers that an architecture keeps.

        Args:
            architecture: An architecture of the space.

        Returns:
            Indices in ascending order.
        """
        return [i for i in range(self.units[0]) if architecture[f"layer{i}.keep"]]

    def problem(self, architecture: Architecture) -> str | None:
        layers, most = len(self.kept_layers(architecture)), self._most_layers()
        if not self.options.min_layers <= layers <= most:
            return f"it keeps {layers} layers; expected {self.options.min_layers} to {most}"
        if self.options.max_params is not None and self._weights is not None:
            size = self.count_params(architecture)
            if size > self.options.max_params:
                return f"it has {size:,} parameters; expected at most {self.options.max_params:,.0f}"
        return None

    def reference(self) -> nn.Module:
        return copy.deepcopy(self._full)

    def __getstate__(self) -> dict[str, Any]:
        # Workers rebuild the full model from the weights, of which Ray keeps one copy per node.
        return {name: value for name, value in self.__dict__.items() if name != "_full"}

    @cached_property
    def _counts(self) -> ModelCounts:
        """Counts of the pretrained model; set by prepare(), and computed here without it."""
        from search_spaces.pretrained.layer_counts import counts_of

        return counts_of(self._full)

    @cached_property
    def _full(self) -> Any:
        """The pretrained model; on a worker, rebuilt from the weights that came with the space.

        The random state is preserved: what a worker computes must not depend on whether it had the model before.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            return self._pretrained()

    @abstractmethod
    def _pretrained(self) -> Any:
        """Load the pretrained model, or rebuild it from the weights."""

    def _ranked(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the importance of heads ``[layers, heads]`` and of neurons ``[layers, neurons]``."""
        if self._scores is not None:
            return self._scores
        # Without prepare(), as in a check or a debugger, the first heads and neurons rank highest.
        layers, *units = self.units
        return tuple(np.tile(-np.arange(n, dtype=float), (layers, 1)) for n in units)

    def _least_layers(self) -> int:
        """Return the smallest number of layers that an architecture may keep."""
        return max(self.options.min_layers, len(self.fixed_layers))

    def _most_layers(self) -> int:
        """Return the largest number of layers that an architecture may keep."""
        return min(self.options.max_layers or self.units[0], self.units[0])


def unit_counts(shares: Sequence[float], total: int) -> tuple[int, ...]:
    """Convert shares into numbers of units.

    For example, the shares 1, 0.5 and 0.01 of 12 units are 12, 6 and 1 units.

    Args:
        shares: Shares, above 0 and at most 1.
        total: Number of units in the pretrained model.

    Returns:
        Distinct numbers, each at least 1, in descending order.
    """
    return tuple(sorted({max(1, round(share * total)) for share in shares}, reverse=True))


def strongest(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the highest scores.

    Args:
        scores: Importance of each unit, ``[units]``.
        count: Number of units to select; of equal scores the lower index comes first.

    Returns:
        Indices ``[count]`` in ascending order.
    """
    return np.sort(np.argsort(-scores, kind="stable")[:count])
