"""What labelled data hold, before anything is trained on them: classes, sizes, lengths and the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_meta.core.wording import counted
from nas_meta.errors import one_line
from nas_meta.tasks.episodes import EpisodeShape
from nas_meta.tasks.examples import IMAGE, MODALITIES, SINGULAR, texts_of
from nas_meta.tasks.pool import Tasks, tokenise
from nas_meta.tasks.source import SplitClasses


@dataclass(frozen=True)
class DataFacts:
    """What was found in labelled data, after cleaning.

    Attributes:
        where: The source of the data, such as the path of its file.
        modality: Kind of the examples: ``text``, ``image`` or ``image-text``.
        examples: The number of examples.
        classes: The number of classes.
        groups: The number of groups that the classes belong to; 0 if they have none.
        smallest: The class with the fewest examples, and their number.
        largest: The class with the most examples, and their number.
        words: Median, 95th percentile and largest number of words of a text; None for images.
        splits: For each split its number of ``classes``, ``groups`` and ``examples``.
        shape: The episodes that trials are judged on.
        notes: Sentences about how the data were read and what was left out.
    """

    where: str
    modality: str
    examples: int
    classes: int
    groups: int
    smallest: tuple[str, int]
    largest: tuple[str, int]
    words: tuple[int, int, int] | None
    splits: Mapping[str, Mapping[str, int]]
    shape: EpisodeShape
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain data, as ``--json`` prints them."""
        return {**vars(self), "shape": vars(self.shape), "notes": list(self.notes)}

    def lines(self) -> list[str]:
        """Return the facts as lines of text."""
        shape, one, what = self.shape, SINGULAR[self.modality], MODALITIES[self.modality]
        groups = f" in {counted(self.groups, 'group')}" if self.groups else ""
        lines = [
            f"data      {one_line(self.where)}",
            f"classes   {self.classes:,}{groups}, with {self.examples:,} different {what}",
            f"smallest  '{one_line(self.smallest[0])}' with {counted(self.smallest[1], one, what)}",
            f"largest   '{one_line(self.largest[0])}' with {counted(self.largest[1], one, what)}",
        ]
        if self.words is not None:
            median, most, longest = self.words
            words = f"median {counted(median, 'word')}; 95 % of the texts have {most:,} or fewer"
            lines.append(f"lengths   {words}, the longest {longest:,}")
        for split, counts in self.splits.items():
            groups = f"{counted(counts['groups'], 'group')} with " if self.groups else ""
            classes, examples = counted(counts["classes"], "class", "classes"), counted(counts["examples"], one, what)
            lines.append(f"{'split':<9} {split}: {groups}{classes}, {examples}")
        per_class = f"{shape.shots} to learn from and {shape.queries} to answer per class"
        lines.append(f"tasks     {counted(shape.ways, 'class', 'classes')}, {per_class}")
        return [*lines, *(f"note      {one_line(note)}" for note in self.notes)]


def word_tasks(split: SplitClasses) -> Tasks:
    """Return the pools of split examples with words in place of tokens, which needs no model.

    Args:
        split: The examples.

    Returns:
        The pools; the lengths of their texts are numbers of words.
    """

    def encode(texts: list[str]) -> tuple[list[range], list[range]]:
        counts = [range(len(text.split())) for text in texts]
        return counts, counts

    return tokenise(split, encode)


def data_facts(split: SplitClasses, shape: EpisodeShape, where: str) -> DataFacts:
    """Collect the facts about split examples.

    Args:
        split: The examples, with at least one class.
        shape: The episodes that trials are judged on.
        where: The source of the data, for people.

    Returns:
        The facts.
    """
    sizes = {name: len(examples) for classes in split.splits.values() for name, examples in classes.items()}
    words = None
    if split.modality != IMAGE:
        texts = [text for classes in split.splits.values() for e in classes.values() for text in texts_of(e)]
        lengths = np.array([len(text.split()) for text in texts])
        words = (int(np.median(lengths)), int(np.percentile(lengths, 95)), int(lengths.max()))
    by_size = sorted(sizes, key=lambda name: (sizes[name], name))
    smallest, largest = by_size[0], by_size[-1]
    splits = {
        name: {
            "classes": len(classes),
            "groups": len({split.groups[c] for c in classes}) if split.groups else 0,
            "examples": sum(map(len, classes.values())),
        }
        for name, classes in split.splits.items()
    }
    return DataFacts(
        where, split.modality, sum(sizes.values()), len(sizes), len(set(split.groups.values())),
        (smallest, sizes[smallest]), (largest, sizes[largest]), words, splits, shape, tuple(split.report),
    )  # fmt: skip
