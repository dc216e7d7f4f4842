"""What sub-networks of pretrained models have in common: the layers they keep, limits, and what ranks their units."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta import Architecture, PluginOptions, SearchSpace
from nas_meta.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class PretrainedSubnet(SearchSpace):
    """Sub-networks of the model that ``space.model`` names, by layers (``layer0.keep``) and shares of each one's units.

    Options have ``model``, ``min_layers``, ``max_layers``, ``max_params``, and the shares by name.
    """

    shares: tuple[str, ...]
    """Names of the options that are shares."""

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
        """Layers of the pretrained model, heads and neurons of each."""

    @abstractmethod
    def count_params(self, architecture: Architecture) -> int:
        """Parameters of an architecture, counted from the shapes of the pretrained weights, without a build."""

    def kept_layers(self, architecture: Architecture) -> list[int]:
        """Indices of the pretrained layers that the architecture keeps."""
        return [i for i in range(self.units[0]) if architecture[f"layer{i}.keep"]]

    def problem(self, architecture: Architecture) -> str | None:
        kept, most = len(self.kept_layers(architecture)), self._most_layers()
        if not self.options.min_layers <= kept <= most:
            return f"it keeps {kept} layers; expected {self.options.min_layers} to {most}"
        if self.options.max_params is not None and self._weights is not None:
            size = self.count_params(architecture)
            if size > self.options.max_params:
                return f"it has {size:,} parameters; expected at most {self.options.max_params:,.0f}"
        return None

    def reference(self) -> nn.Module:
        return copy.deepcopy(self._full)

    def __getstate__(self) -> dict[str, Any]:
        # The whole model is made anew from the weights, which Ray shares.
        return {name: value for name, value in self.__dict__.items() if name != "_full"}

    def _ranked(self) -> tuple[np.ndarray, np.ndarray]:
        if self._scores is not None:
            return self._scores
        # Not prepared (a check, a debugger): the first heads and neurons.
        layers, *units = self.units
        return tuple(np.tile(-np.arange(n, dtype=float), (layers, 1)) for n in units)

    def _most_layers(self) -> int:
        return min(self.options.max_layers or self.units[0], self.units[0])


def counts(shares: Sequence[float], of: int) -> tuple[int, ...]:
    """Shares of a number as distinct whole numbers, at least one, largest first."""
    return tuple(sorted({max(1, round(share * of)) for share in shares}, reverse=True))


def strongest(scores: np.ndarray, count: int) -> np.ndarray:
    """Sorted indices of the ``count`` highest scores; equal scores go to the lower index."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])
