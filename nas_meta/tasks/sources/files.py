"""Labelled texts from the user's own files: JSON Lines and CSV."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, model_validator

from nas_meta.core.files import is_encodable, json_object, regular_file
from nas_meta.errors import DataError, nearest
from nas_meta.tasks.examples import Example
from nas_meta.tasks.source import SPLITS, Classes, SourceOptions, TaskSource


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


class FileOptions(SplitPaths):
    """Options of the task sources ``csv`` and ``jsonl``."""

    text: str = Field("text", description="field or column with the text")
    label: str = Field("label", description="field or column with the class")
    min_examples: int = Field(2, ge=2, description="classes with fewer distinct texts are left out")


class FileSource(TaskSource):
    """Base of task sources that read rows from files; subclasses define :meth:`rows`."""

    Options = FileOptions

    def read(self) -> Classes | dict[str, Classes]:
        if self.options.path is not None:
            return self._classes(self.options.path)
        files = (self.options.train, self.options.valid, self.options.test)
        return {split: self._classes(file) for split, file in zip(SPLITS, files, strict=True)}

    def where(self) -> str:
        return str(self.options.path or self.options.train)

    def rows(self, file: Path) -> Iterator[tuple[int, dict]]:
        """Yield the rows of a file.

        Args:
            file: Regular file.

        Yields:
            Line number, from 1, and fields of each row.
        """
        raise AssertionError("every file source defines rows()")

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

    def _classes(self, file: Path) -> Classes:
        """Read the examples of one file by class."""
        classes: dict[str, list[Example]] = defaultdict(list)
        try:
            for line, row in self.rows(regular_file(file)):
                where = f"{file}:{line}"
                example, label = self.example(row, file, where), self.value(row, self.options.label, where)
                if not label.strip():
                    raise DataError(f"{where}: '{self.options.label}' is empty; expected a class name")
                classes[label].append(example)
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 (byte {error.start}); expected UTF-8 text") from error
        if not classes:
            raise DataError(f"{file} contains no examples; expected one example per line")
        return dict(classes)

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
        if not isinstance(row[key], (str, int)):
            raise DataError(f"{where}: '{key}' is {type(row[key]).__name__}; expected a string")
        value = str(row[key])
        if not is_encodable(value):
            raise DataError(f"{where}: '{key}' contains a lone surrogate; expected text that UTF-8 can encode")
        return value


class JSONLines(FileSource):
    """One JSON object per line, with a text field and a label field."""

    def rows(self, file: Path) -> Iterator[tuple[int, dict]]:
        with open(file, encoding="utf-8-sig") as stream:
            for line, content in enumerate(stream, 1):
                if not content.strip():
                    continue
                yield line, json_object(content, f"{file}:{line}")


class CSV(FileSource):
    """Comma-separated values with a header line, a text column and a label column."""

    def rows(self, file: Path) -> Iterator[tuple[int, dict]]:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            try:
                header = next(reader, [])
                for name in (self.options.text, self.options.label):
                    if header.count(name) > 1:
                        raise DataError(f"{file}:1: {header.count(name)} columns are named '{name}'; expected one")
                for values in reader:
                    if len(values) > len(header):
                        raise DataError(
                            f"{file}:{reader.line_num}: the row has {len(values)} values, but the header has "
                            f"{len(header)}; expected quotes around values that contain commas"
                        )
                    if values:
                        yield reader.line_num, dict(zip(header, values, strict=False))
            except csv.Error as error:
                raise DataError(f"{file}:{reader.line_num}: not CSV ({error})") from error
