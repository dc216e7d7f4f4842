"""Grid search, with NNI's ``GridSearch``."""

from __future__ import annotations

from nni.nas.strategy import GridSearch
from pydantic import Field

from nas_meta import PluginOptions
from strategies.nni.adapter import NNIAdapter


class GridOptions(PluginOptions):
    """Options of ``grid``."""

    shuffle: bool = Field(
        True,
        description="whether blocks of a hundred architectures are shuffled; otherwise choices vary in order",
    )


class Grid(NNIAdapter):
    """Exhaustive search: every architecture once, in order or shuffled in blocks (NNI)."""

    Options = GridOptions

    def make(self) -> GridSearch:
        return GridSearch(shuffle=self.options.shuffle, seed=self.context.seed)
