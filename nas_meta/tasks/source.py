"""Task sources: labelled examples, cleaned, and their classes split once into three disjoint parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nas_meta.core.files import is_encodable
from nas_meta.core.guard import plugin_call, type_name
from nas_meta.core.options import PluginOptions
from nas_meta.errors import DataError, nearest
from nas_meta.tasks.examples import MODALITIES, TEXT, Example, content, distinct, problem, size

if TYPE_CHECKING:
    from typing_extensions import TypeIs

SPLITS = ("meta-train", "meta-validation", "meta-test")
Classes = Mapping[str, Sequence[Example]]


class SourceOptions(PluginOptions):
    """Options that every task source has."""

    min_examples: int = Field(20, ge=2, description="classes with fewer distinct examples are left out")
    fractions: tuple[float, float, float] = Field(
        (0.5, 0.25, 0.25), description="share of the classes in meta-train, meta-validation, meta-test"
    )
    split_seed: int = Field(0, ge=0, description="seed of the class split")


@dataclass(frozen=True)
class SplitClasses:
    """The classes of each split with their examples; ``report`` says what was left out, in words."""

    splits: Mapping[str, Classes]
    report: Sequence[str] = field(default_factory=tuple)
    modality: str = TEXT


class TaskSource(ABC):
    """A task source plugin: :meth:`read` returns examples by class; cleaning and splitting are the engine's."""

    Options: type[SourceOptions] = SourceOptions
    modality: str = TEXT
    """What the examples are: ``text``, ``image`` or ``image-text`` (:mod:`nas_meta.tasks.examples`)."""

    def __init__(self, options: SourceOptions | None = None):
        self.options = options if options is not None else self.Options()

    @abstractmethod
    def read(self) -> Classes | Mapping[str, Classes]:
        """Examples by class; or, by the names in :data:`SPLITS`, examples by class for each split."""

    def load(self) -> SplitClasses:
        """The cleaned, class-disjoint splits.

        Raises:
            DataError: classes shared between given splits, or something else than examples by class.
        """
        if self.modality not in MODALITIES:
            raise DataError(f"{self.where()} gives '{self.modality}'; {nearest(str(self.modality), MODALITIES)}")
        with plugin_call(self, "read"):
            raw = self.read()
        if not isinstance(raw, Mapping):
            raise DataError(
                f"{self.where()}: read() returned {type_name(raw)}; expected a mapping from classes to "
                f"their {self._what}"
            )
        if _split_already(raw):
            for part in raw.values():
                self._check(part)
            shared = [
                (name, a, b)
                for i, a in enumerate(SPLITS)
                for b in SPLITS[i + 1 :]
                for name in sorted(set(raw[a]) & set(raw[b]))
            ]
            if shared:
                name, a, b = shared[0]
                raise DataError(f"{self.where()}: the class '{name}' is in {a} and in {b}; expected disjoint classes")
            every = {name: texts for part in raw.values() for name, texts in part.items()}
            self._check_shapes(every)
            cleaned, report = clean(every, self.options.min_examples, self.modality)
            splits = {split: {n: cleaned[n] for n in sorted(raw[split]) if n in cleaned} for split in SPLITS}
        else:
            self._check(raw)
            self._check_shapes(raw)
            cleaned, report = clean(raw, self.options.min_examples, self.modality)
            splits = split_classes(cleaned, self.options.fractions, self.options.split_seed)
        assert_disjoint(splits)
        return SplitClasses(splits, tuple(report), self.modality)

    def spoken(self, name: str) -> str:
        """A class in words, for learners that read its name; by default the name, its underscores as spaces."""
        return name.replace("_", " ").strip() or name

    def where(self) -> str:
        """What an error message calls this source."""
        return f"task source {type(self).__name__}"

    @property
    def _what(self) -> str:
        return MODALITIES[self.modality]

    def _check(self, classes: Classes) -> None:
        for name, examples in classes.items():
            if not isinstance(name, str) or not is_encodable(name):
                raise DataError(f"{self.where()}: read() has the class {name!r}; expected text as its name")
            if isinstance(examples, str) or not isinstance(examples, Sequence):
                raise DataError(
                    f"{self.where()}: read() has {type_name(examples)} for the class '{name}'; "
                    f"expected a list of {self._what}"
                )
            for example in examples:
                if wrong := problem(example, self.modality):
                    raise DataError(f"{self.where()}: read() has {wrong[0]} in the class '{name}'; expected {wrong[1]}")

    def _check_shapes(self, classes: Classes) -> None:
        if self.modality == TEXT:
            return
        first = None
        for name, examples in classes.items():
            for example in examples:
                image = example[0] if isinstance(example, tuple) else example
                assert isinstance(image, np.ndarray)  # as was checked before
                shape = image.shape
                first = first or shape
                if shape != first:
                    raise DataError(
                        f"{self.where()}: read() has an image of {size(shape)} in the class '{name}', and another is "
                        f"{size(first)}; expected one shape"
                    )


def _split_already(raw: Classes | Mapping[str, Classes]) -> TypeIs[Mapping[str, Classes]]:
    return set(raw) == set(SPLITS) and all(isinstance(v, Mapping) for v in raw.values())


def clean(classes: Classes, min_examples: int, modality: str = TEXT) -> tuple[dict[str, list[Example]], list[str]]:
    """Drops repeated examples, examples that stand in several classes, and classes with too few left.

    Returns the cleaned classes, sorted by name, and a sentence for each kind of thing left out.
    """
    unique = {name: distinct(examples) for name, examples in classes.items()}
    owners = Counter(one for examples in unique.values() for one in examples)
    kept = {name: [e for one, e in examples.items() if owners[one] == 1] for name, examples in sorted(unique.items())}
    repeated = sum(len(examples) for examples in classes.values()) - sum(map(len, unique.values()))
    ambiguous = sum(1 for n in owners.values() if n > 1)
    small = {name for name, examples in kept.items() if len(examples) < min_examples}
    what, report = MODALITIES[modality], []
    if repeated:
        report.append(f"{repeated} repeated{' or empty' if modality == TEXT else ''} {what} left out")
    if ambiguous:
        report.append(f"{ambiguous} {what} that stand in several classes left out")
    if small:
        report.append(f"{len(small)} classes with fewer than {min_examples} distinct {what} left out")
    return {n: e for n, e in kept.items() if n not in small}, report


def split_classes(
    classes: Mapping[str, list[Example]], fractions: Sequence[float], seed: int
) -> dict[str, dict[str, list[Example]]]:
    """Splits classes by name: shuffled by the seed, then cut at the fractions."""
    if any(f <= 0 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"tasks.fractions is {list(fractions)}; expected three positive numbers that sum to 1")
    names = sorted(classes)
    np.random.default_rng(seed).shuffle(names)
    first = round(len(names) * fractions[0])
    second = round(len(names) * (fractions[0] + fractions[1]))
    parts = names[:first], names[first:second], names[second:]
    return {split: {n: classes[n] for n in sorted(part)} for split, part in zip(SPLITS, parts, strict=True)}


def assert_disjoint(splits: Mapping[str, Classes]) -> None:
    """Raises AssertionError where two splits share a class or an example."""
    contents = {split: {content(e) for v in splits[split].values() for e in v} for split in SPLITS}
    for i, a in enumerate(SPLITS):
        for b in SPLITS[i + 1 :]:
            assert not set(splits[a]) & set(splits[b]), f"{a} and {b} share classes"
            assert contents[a].isdisjoint(contents[b]), f"{a} and {b} share examples"
