"""Labelled texts from the user's own files: JSON Lines, JSON and CSV."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from nas_meta.core.files import is_encodable, regular_file, why_unreadable
from nas_meta.core.wording import counted
from nas_meta.errors import DataError, nearest
from nas_meta.tasks.class_names import merge_report
from nas_meta.tasks.examples import Example, normalised
from nas_meta.tasks.reading import delimited, json_rows
from nas_meta.tasks.reading.encoding import KNOWN, is_text_encoding, text_encoding
from nas_meta.tasks.reading.row import Row
from nas_meta.tasks.source import SPLITS, Classes, SourceOptions, TaskSource, joined

SPLIT_NAMES = {  # names of splits in files of other programs
    **dict.fromkeys(("train", "training", SPLITS[0]), SPLITS[0]),
    **dict.fromkeys(("valid", "validation", "val", "dev", SPLITS[1]), SPLITS[1]),
    **dict.fromkeys(("test", "testing", SPLITS[2]), SPLITS[2]),
}


class SplitPaths(SourceOptions):
    """Options of every task source that reads files: either ``path``, or ``train``, ``valid`` and ``test``."""

    path: Path | None = Field(None, description="file or folder whose classes are split by fractions and split_seed")
    train: Path | None = Field(None, description="file or folder with the meta-train classes")
    valid: Path | None = Field(None, description="file or folder with the meta-validation classes")
    test: Path | None = Field(None, description="file or folder with the meta-test classes")

    @model_validator(mode="after")
    def _one_or_three(self) -> SplitPaths:
        three = [self.train, self.valid, self.test]
        if (self.path is None) == all(f is None for f in three) or (self.path is None and None in three):
            raise ValueError("expected either path, or all of train, valid and test")
        return self


class RowFiles(SplitPaths):
    """Options of every task source that reads rows."""

    group: str | None = Field(
        None,
        description="field or column that divides the examples into tasks, such as products: the classes of an episode "
        "are of one task, and splits divide the tasks instead of the classes",
    )


class ColumnOptions(RowFiles):
    """Options of every task source that reads rows with a text and a label."""

    text: str = Field("text", description="field or column with the text")
    label: str = Field("label", description="field or column with the class")
    min_examples: int = Field(2, ge=2, description="classes with fewer distinct texts are left out")


class EncodedFiles(RowFiles):
    """Options of every task source that reads text files."""

    encoding: str | None = Field(
        None, description="encoding of the files, such as utf-8 or cp1252; by default recognised by their bytes"
    )

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str | None) -> str | None:
        if encoding is not None and not is_text_encoding(encoding):
            raise ValueError(f"there is no encoding '{encoding}'; {nearest(encoding, KNOWN)}")
        return encoding


class FileOptions(ColumnOptions, EncodedFiles):
    """Options of the task source ``jsonl``, and those that ``csv`` shares with it."""


class CSVOptions(FileOptions):
    """Options of the task source ``csv``."""

    delimiter: str | None = Field(
        None, description="character between values, or tab; by default recognised by the columns of the header"
    )

    @field_validator("delimiter")
    @classmethod
    def _is_one_character(cls, delimiter: str | None) -> str | None:
        if delimiter in ("tab", "\\t"):
            return "\t"
        if delimiter is not None and not delimited.is_delimiter(delimiter):
            raise ValueError(f"{delimiter!r} cannot separate values; expected one character such as ',' or ';', or tab")
        return delimiter


class FileSource(TaskSource):
    """Base of task sources that read rows from files; subclasses define :meth:`rows`."""

    Options: type[SourceOptions] = FileOptions
    options: Any

    def __init__(self, options: SourceOptions | None = None):
        super().__init__(options)
        self._notes: list[str] = []
        self._grouped: dict[str, tuple[str, str]] = {}  # group and label by the name of their class
        self._spellings: dict[str, str] = {}  # name by every spelling of a group with a label

    def read(self) -> Classes | dict[str, Classes]:
        self._notes, self._grouped, self._spellings = [], {}, {}
        if self.options.path is not None:
            return self._split(self.options.path)
        files = (self.options.train, self.options.valid, self.options.test)
        return {split: joined(self._parts(file).values()) for split, file in zip(SPLITS, files, strict=True)}

    def examples(self) -> Classes:
        """Return the examples of the file ``path`` by class, whatever splits it names."""
        return joined(self._parts(self.options.path).values())

    def reading_notes(self) -> tuple[str, ...]:
        counts = Counter(self._spellings.values())
        merged = {spelling: name for spelling, name in self._spellings.items() if counts[name] > 1 and spelling != name}
        return (*self._notes, *merge_report(merged))

    def where(self) -> str:
        return str(self.options.path or self.options.train)

    def group_of(self, name: str) -> str:
        return self._grouped[name][0] if self._grouped else ""

    def spoken(self, name: str) -> str:
        return super().spoken(self._grouped[name][1] if self._grouped else name)

    @property
    def columns(self) -> list[str]:
        """Fields that a row must have: the text, the label and, if there is one, the group."""
        return [self.options.text, self.options.label, *([self.options.group] if self.options.group else [])]

    def rows(self, file: Path) -> Iterator[Row]:
        """Yield the rows of a file.

        Args:
            file: Path from the options.

        Yields:
            The fields of each row, and where it stands.
        """
        raise AssertionError("every file source defines rows()")

    def note(self, sentence: str) -> None:
        """Add a sentence about how a file was read to :meth:`reading_notes`.

        Args:
            sentence: The sentence; an empty one is ignored.
        """
        if sentence:
            self._notes.append(sentence)

    def example(self, row: dict, file: Path, where: str) -> Example:
        """Return the example in a row; by default its text.

        Args:
            row: Fields of the row.
            file: File of the row, for paths relative to it.
            where: File and line of the row, for error messages.

        Raises:
            DataError: A field is missing or cannot be used.
        """
        return self.value(row, self.options.text, where)

    def value(self, row: dict, key: str, where: str) -> str:
        """Return a field of a row as text.

        Args:
            row: Fields of the row.
            key: Name of the field.
            where: File and line of the row, for error messages.

        Raises:
            DataError: The field is missing, or is neither text nor an integer.
        """
        if key not in row:
            raise DataError(f"{where}: there is no field '{key}'; {nearest(key, map(str, row))}")
        if row[key] is None:
            raise DataError(f"{where}: '{key}' is empty; expected a string")
        if not isinstance(row[key], (str, int)):
            raise DataError(f"{where}: '{key}' is {type(row[key]).__name__}; expected a string")
        value = str(row[key])
        if not is_encodable(value):
            raise DataError(f"{where}: '{key}' contains a lone surrogate; expected text that UTF-8 can encode")
        return value

    def _class(self, row: Row, label: str) -> str:
        """Return the name of the class of a row: its label, after its group if there are groups."""
        if self.options.group is None:
            return label
        given = self.value(row.fields, self.options.group, row.where)
        group, spelling, label = normalised(given), f"{given}: {label}", normalised(label)
        if not group:
            raise DataError(f"{row.where}: '{self.options.group}' is empty; expected the name of a group")
        name = f"{group}: {label}"
        if self._grouped.setdefault(name, (group, label)) != (group, label):
            raise DataError(
                f"{row.where}: the group '{group}' with the class '{label}' has the name of another group with another "
                f"class, '{name}'; expected groups without ': '"
            )
        self._spellings[spelling] = name
        return name

    def _split(self, path: Path) -> Classes | dict[str, Classes]:
        """Read a path whose rows may name their splits: three splits are kept, others are joined."""
        parts = self._parts(path)
        if {SPLIT_NAMES.get(name.lower()) for name in parts} == set(SPLITS):
            splits = {s: [part for name, part in parts.items() if SPLIT_NAMES[name.lower()] == s] for s in SPLITS}
            return {split: joined(found) for split, found in splits.items()}
        if len(parts) > 1:
            names = " and ".join(f"'{name}'" for name in parts)
            self.note(f"{path} has the splits {names}, which are joined; its classes are split anew")
        return joined(parts.values())

    def _parts(self, file: Path) -> dict[str, Classes]:
        """Read the examples of one file by split and class; rows without a text are left out."""
        parts: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
        empty = 0
        try:
            for row in self.rows(file):
                text = row.fields.get(self.options.text, "")
                if _is_null(text):
                    empty += 1
                    continue
                example = self.example(row.fields, file, row.where)
                label = self.value(row.fields, self.options.label, row.where)
                if not label.strip():
                    raise DataError(f"{row.where}: '{self.options.label}' is empty; expected a class name")
                parts[row.split][self._class(row, label)].append(example)
        except OSError as error:
            raise DataError(f"{file} cannot be read: {why_unreadable(file, error)}") from error
        if empty:
            self.note(f"{file} has {counted(empty, 'row')} without a text, left out")
        if not parts:
            raise DataError(f"{file} contains no examples; expected rows with a text and a label")
        return {split: dict(classes) for split, classes in parts.items()}


def _is_null(value: Any) -> bool:
    """Return whether a value is what other programs write for a missing text: null or NaN."""
    return value is None or value != value


class JSONLines(FileSource):
    """JSON with a text and a label in each object: one object per line, an array, or an array for each split."""

    def rows(self, file: Path) -> Iterator[Row]:
        encoding = text_encoding(regular_file(file), self.options.encoding)
        self.note(encoding.note)
        yield from json_rows.rows(file, encoding.name, self.columns)


class CSV(FileSource):
    """Delimited text with a header line, a text column and a label column; delimiter and encoding are recognised."""

    Options = CSVOptions

    def rows(self, file: Path) -> Iterator[Row]:
        encoding = text_encoding(regular_file(file), self.options.encoding)
        # Options of the class FileOptions have no delimiter.
        layout = delimited.recognise(file, encoding.name, self.columns, getattr(self.options, "delimiter", None))
        for note in (encoding.note, *layout.notes):
            self.note(note)
        yield from delimited.rows(file, layout, self.columns)
