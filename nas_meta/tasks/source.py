"""Task sources: labelled examples, cleaned and split by class into meta-train, meta-validation and meta-test.

No class and no example is in two splits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from pydantic import Field

from nas_meta.core.files import is_encodable
from nas_meta.core.guard import plugin_call, type_name
from nas_meta.core.options import PluginOptions
from nas_meta.core.wording import counted
from nas_meta.errors import DataError, nearest
from nas_meta.tasks.class_names import in_words, merge_names, merge_report
from nas_meta.tasks.examples import MODALITIES, SINGULAR, TEXT, Example, content_key, deduplicate, mismatch, size

if TYPE_CHECKING:
    from typing_extensions import TypeIs

SPLITS = ("meta-train", "meta-validation", "meta-test")
Classes = Mapping[str, Sequence[Example]]
T = TypeVar("T")


class SourceOptions(PluginOptions):
    """Options of every task source."""

    min_examples: int = Field(20, ge=2, description="classes with fewer distinct examples are left out")
    fractions: tuple[float, float, float] = Field(
        (0.5, 0.25, 0.25), description="shares of the classes in meta-train, meta-validation and meta-test"
    )
    split_seed: int = Field(0, ge=0, description="seed that decides which classes go to which split")
    join_splits: bool = Field(
        False,
        description="join the splits that the data have, such as files of the same classes, and split all classes",
    )


@dataclass(frozen=True)
class SplitClasses:
    """The classes of each split with their examples.

    Attributes:
        splits: Examples by class, by the names in :data:`SPLITS`.
        report: One sentence for each reason why examples or classes were left out.
        modality: Kind of the examples: ``text``, ``image`` or ``image-text``.
        groups: Group of each class (:meth:`TaskSource.group_of`); empty if classes have none.
    """

    splits: Mapping[str, Classes]
    report: Sequence[str] = field(default_factory=tuple)
    modality: str = TEXT
    groups: Mapping[str, str] = field(default_factory=dict)


class TaskSource(ABC):
    """A task source plugin: reads labelled examples, which nas-meta cleans and splits by class.

    Subclasses define :meth:`read`. They may set :attr:`Options` to a subclass of :class:`SourceOptions`, and
    :attr:`modality` if their examples are not texts.

    Args:
        options: Validated options of the source; the defaults of :attr:`Options` if None.
    """

    Options: type[SourceOptions] = SourceOptions
    modality: str = TEXT
    """Kind of the examples: ``text``, ``image`` or ``image-text`` (:mod:`nas_meta.tasks.examples`)."""

    def __init__(self, options: SourceOptions | None = None):
        self.options = options if options is not None else self.Options()

    @abstractmethod
    def read(self) -> Classes | Mapping[str, Classes]:
        """Read every labelled example.

        Returns:
            Examples by class name. To choose the classes of each split, return such a mapping for every name in
            :data:`SPLITS` instead.
        """

    def load(self) -> SplitClasses:
        """Read, clean and split the examples.

        Returns:
            Splits that share no class and no example.

        Raises:
            DataError: :meth:`read` returned something other than examples by class, images of different shapes, or a
                class in two splits; or :attr:`modality` or the option ``fractions`` is invalid.
            PluginError: :meth:`read` raised an unexpected exception.
        """
        if self.modality not in MODALITIES:
            raise DataError(f"{self.where()}: modality is '{self.modality}'; {nearest(str(self.modality), MODALITIES)}")
        with plugin_call(self, "read"):
            raw = self.read()
        return self.divided(raw)

    def divided(self, raw: Classes | Mapping[str, Classes]) -> SplitClasses:
        """Clean and split the examples that :meth:`read` returned.

        Args:
            raw: What :meth:`read` returned.

        Returns:
            As :meth:`load`.

        Raises:
            DataError: As :meth:`load`.
        """
        with plugin_call(self, "reading_notes"):
            notes = tuple(self.reading_notes())
        if not isinstance(raw, Mapping):
            raise DataError(
                f"{self.where()}: read() returned {type_name(raw)}; expected a mapping from classes to "
                f"their {self._what}"
            )
        parts, merged = self._named(raw)
        every = {name: examples for part in parts.values() for name, examples in part.items()}
        self._check_shapes(every)
        cleaned, report = clean(every, self.options.min_examples, self.modality)
        groups = self._groups(cleaned)
        if len(parts) > 1:
            splits = {split: {n: cleaned[n] for n in sorted(parts[split]) if n in cleaned} for split in SPLITS}
        elif groups:
            divided = split_classes(members_of(groups), self.options.fractions, self.options.split_seed)
            splits = {
                split: {name: cleaned[name] for name in sorted(n for names in divided[split].values() for n in names)}
                for split in SPLITS
            }
        else:
            splits = split_classes(cleaned, self.options.fractions, self.options.split_seed)
        assert_disjoint(splits)
        return SplitClasses(splits, (*notes, *merge_report(merged), *report), self.modality, groups)

    def spoken(self, name: str) -> str:
        """Return a class name as words, for learners whose prompts contain it.

        Args:
            name: Class name as :meth:`read` returned it, without white space around it and in Unicode form C.

        Returns:
            Text that is not blank; by default :func:`nas_meta.tasks.class_names.in_words` of the name.
        """
        return in_words(name)

    def group_of(self, name: str) -> str:
        """Return the group of a class, for data of many tasks with few classes each, such as moods by product.

        If classes have groups, splits divide the groups instead of the classes, and the classes of an episode are all
        of one group.

        Args:
            name: Class name as in :meth:`spoken`.

        Returns:
            Name of the group; empty, the default, if classes have no groups.
        """
        return ""

    def where(self) -> str:
        """Return the name of this source in error messages, such as the path of its file."""
        return f"task source {type(self).__name__}"

    def reading_notes(self) -> Sequence[str]:
        """Return one sentence for everything in which :meth:`read` had to interpret the data, such as their encoding.

        Returns:
            Sentences for :attr:`SplitClasses.report`; by default none.
        """
        return ()

    @property
    def _what(self) -> str:
        return MODALITIES[self.modality]

    def _named(
        self, raw: Classes | Mapping[str, Classes]
    ) -> tuple[dict[str, dict[str, list[Example]]], dict[str, str]]:
        """Check what :meth:`read` returned, and merge classes whose names are the same once normalised.

        Returns:
            Examples by class for each split, or for the split ``""`` if the source has no splits; no class is in two.
            Then the normalised name of each spelling that was merged.
        """
        parts: dict[str, dict[str, list[Example]]] = {}
        merged: dict[str, str] = {}
        for split, classes in raw.items() if _split_already(raw) else [("", raw)]:
            self._check(classes)
            parts[split], others = merge_names(classes)
            merged |= others
        if len(parts) > 1 and self.options.join_splits:
            return {"": joined(parts.values())}, merged
        for a, b in combinations(SPLITS, 2):
            shared = sorted(set(parts.get(a, ())) & set(parts.get(b, ())))
            if shared:
                more = f", as are {len(shared) - 1} more" if len(shared) > 1 else ""
                raise DataError(
                    f"{self.where()}: the class '{shared[0]}' is in both {a} and {b}{more}; expected every class in "
                    "one split, or tasks.join_splits: true, which joins the splits and splits their classes anew"
                )
        return parts, merged

    def _groups(self, names: Iterable[str]) -> dict[str, str]:
        """Return the group of each class; empty if classes have no groups."""
        with plugin_call(self, "group_of"):
            groups = {name: self.group_of(name) for name in names}
        for name, group in groups.items():
            if not isinstance(group, str) or bool(group) != any(groups.values()):
                raise DataError(
                    f"{self.where()}: group_of() returned {group!r} for the class '{name}'; expected the name of a "
                    "group for every class, or an empty string for every class"
                )
        return groups if any(groups.values()) else {}

    def _check(self, classes: Classes) -> None:
        for name, examples in classes.items():
            if not isinstance(name, str) or not is_encodable(name):
                raise DataError(
                    f"{self.where()}: read() returned the class name {name!r}; expected a string that UTF-8 can encode"
                )
            if isinstance(examples, str) or not isinstance(examples, Sequence):
                raise DataError(
                    f"{self.where()}: read() returned {type_name(examples)} for the class '{name}'; "
                    f"expected a list of {self._what}"
                )
            for example in examples:
                if wrong := mismatch(example, self.modality):
                    raise DataError(
                        f"{self.where()}: read() returned {wrong[0]} in the class '{name}'; expected {wrong[1]}"
                    )

    def _check_shapes(self, classes: Classes) -> None:
        if self.modality == TEXT:
            return
        first = None
        for name, examples in classes.items():
            for example in examples:
                image = example[0] if isinstance(example, tuple) else example
                assert isinstance(image, np.ndarray)  # checked by _check
                shape = image.shape
                first = first or shape
                if shape != first:
                    raise DataError(
                        f"{self.where()}: read() returned an image of {size(shape)} in the class '{name}', but the "
                        f"first image is {size(first)}; expected images of one shape"
                    )


def joined(parts: Iterable[Classes]) -> dict[str, list[Example]]:
    """Return the examples of several parts of the data by class.

    Args:
        parts: Examples by class for each part; parts may share classes.
    """
    classes: dict[str, list[Example]] = {}
    for part in parts:
        for name, examples in part.items():
            classes.setdefault(name, []).extend(examples)
    return classes


def _split_already(raw: Classes | Mapping[str, Classes]) -> TypeIs[Mapping[str, Classes]]:
    return set(raw) == set(SPLITS) and all(isinstance(v, Mapping) for v in raw.values())


def clean(classes: Classes, min_examples: int, modality: str = TEXT) -> tuple[dict[str, list[Example]], list[str]]:
    """Drop repeated and ambiguous examples, then classes with too few examples.

    An example is ambiguous if it belongs to several classes; it is dropped from all of them.

    Args:
        classes: Examples by class.
        min_examples: Classes with fewer remaining examples are dropped.
        modality: Kind of the examples: ``text``, ``image`` or ``image-text``.

    Returns:
        The remaining classes, sorted by name, and one sentence for each reason why something was left out.
    """
    unique = {name: deduplicate(examples) for name, examples in classes.items()}
    owners = Counter(key for examples in unique.values() for key in examples)
    unambiguous = {
        name: [e for key, e in examples.items() if owners[key] == 1] for name, examples in sorted(unique.items())
    }
    repeated = sum(len(examples) for examples in classes.values()) - sum(map(len, unique.values()))
    ambiguous = sum(1 for n in owners.values() if n > 1)
    small = {name for name, examples in unambiguous.items() if len(examples) < min_examples}
    one, what, report = SINGULAR[modality], MODALITIES[modality], []
    if repeated:
        kind = "repeated or empty" if modality == TEXT else "repeated"
        report.append(f"{counted(repeated, f'{kind} {one}', f'{kind} {what}')} left out")
    if ambiguous:
        verb = "belongs" if ambiguous == 1 else "belong"
        report.append(f"{counted(ambiguous, one, what)} that {verb} to several classes left out")
    if small:
        fewer = f"fewer than {min_examples} distinct {what}"
        report.append(f"{counted(len(small), 'class', 'classes')} with {fewer} left out")
    return {n: e for n, e in unambiguous.items() if n not in small}, report


def members_of(groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the classes of each group.

    Args:
        groups: Group of each class.
    """
    members: dict[str, list[str]] = {}
    for name, group in groups.items():
        members.setdefault(group, []).append(name)
    return members


def split_classes(
    classes: Mapping[str, list[T]], fractions: Sequence[float], seed: int
) -> dict[str, dict[str, list[T]]]:
    """Split classes at random into meta-train, meta-validation and meta-test.

    The sorted class names are shuffled and then cut at the cumulative fractions, so the split depends on the names, the
    fractions and the seed alone.

    Args:
        classes: Examples by class; or classes by group, to split groups.
        fractions: Positive shares of the classes for each name in :data:`SPLITS`; their sum is 1.
        seed: Seed of the shuffle.

    Returns:
        Examples by class for each split, classes sorted by name.

    Raises:
        DataError: A fraction is not positive, or the sum is not 1.
    """
    if any(f <= 0 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"tasks.fractions is {list(fractions)}; expected three positive numbers that sum to 1")
    names = sorted(classes)
    np.random.default_rng(seed).shuffle(names)
    first = round(len(names) * fractions[0])
    second = round(len(names) * (fractions[0] + fractions[1]))
    parts = names[:first], names[first:second], names[second:]
    return {split: {n: classes[n] for n in sorted(part)} for split, part in zip(SPLITS, parts, strict=True)}


def assert_disjoint(splits: Mapping[str, Classes]) -> None:
    """Assert that the splits are disjoint.

    Args:
        splits: Examples by class for each name in :data:`SPLITS`.

    Raises:
        AssertionError: Two splits share a class or an example.
    """
    contents = {split: {content_key(e) for v in splits[split].values() for e in v} for split in SPLITS}
    for i, a in enumerate(SPLITS):
        for b in SPLITS[i + 1 :]:
            assert not set(splits[a]) & set(splits[b]), f"{a} and {b} share classes"
            assert contents[a].isdisjoint(contents[b]), f"{a} and {b} share examples"
