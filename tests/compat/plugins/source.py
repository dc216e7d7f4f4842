"""Two task sources: one whose classes the engine splits, one that brings its splits.

FROZEN: written against nas-meta 0.1. Never edited to make a test pass, for an author's own plugin is not either.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from pydantic import Field

from nas_meta import TaskSource
from nas_meta.errors import DataError
from nas_meta.tasks.source import SPLITS, SourceOptions

COLOURS = ("red", "blue", "green", "gray", "pink", "gold")
ANIMALS = ("fox", "cat", "owl", "bee")
WORDS = [f"{colour}{animal}" for colour in COLOURS for animal in ANIMALS]


class AnimalsOptions(SourceOptions):
    """Options of the sources."""

    min_examples: int = 8
    examples: int = Field(10, ge=1, description="texts of a class")


class Animals(TaskSource):
    """Twelve classes of coloured animals, each with two words of its own."""

    Options = AnimalsOptions
    options: AnimalsOptions

    def read(self) -> Mapping[str, Sequence[str]]:
        if self.options.examples > 500:
            raise DataError(f"{self.where()}: there are not so many texts; expected examples of at most 500")
        rng = random.Random(0)
        return {f"class{i}": self._texts(rng, WORDS[2 * i : 2 * i + 2]) for i in range(12)}

    def _texts(self, rng: random.Random, own: Sequence[str]) -> list[str]:
        texts: dict[str, None] = {}
        while len(texts) < self.options.examples:
            texts[" ".join(rng.choices(own, k=2) + rng.choices(WORDS, k=3))] = None
        return list(texts)


class SplitAnimals(TaskSource):
    """The same, four classes for every split."""

    Options = AnimalsOptions
    options: AnimalsOptions

    def read(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        classes = Animals(self.options).read()
        names = sorted(classes)
        return {split: {n: classes[n] for n in names[4 * i : 4 * i + 4]} for i, split in enumerate(SPLITS)}
