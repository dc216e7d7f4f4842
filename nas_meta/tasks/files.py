"""Labelled examples from the user's own files: JSON Lines and CSV."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, model_validator

from nas_meta.errors import DataError, nearest
from nas_meta.tasks.source import SPLITS, Classes, SourceOptions, TaskSource


class FileOptions(SourceOptions):
    """Either ``path`` (one file, its classes split by ``fractions``) or ``train``, ``valid`` and ``test``."""

    path: Path | None = Field(None, description="one file; its classes are split by fractions and split_seed")
    train: Path | None = Field(None, description="the file with the meta-train classes")
    valid: Path | None = Field(None, description="the file with the meta-validation classes")
    test: Path | None = Field(None, description="the file with the meta-test classes")
    text: str = Field("text", description="name of the text field")
    label: str = Field("label", description="name of the label field")
    min_examples: int = Field(2, ge=2, description="classes with fewer distinct texts are left out")

    @model_validator(mode="after")
    def _one_or_three(self) -> FileOptions:
        three = [self.train, self.valid, self.test]
        if (self.path is None) == all(f is None for f in three) or (self.path is None and None in three):
            raise ValueError("expected either path, or all of train, valid and test")
        return self


class FileSource(TaskSource):
    """What JSON Lines and CSV share; subclasses yield (line number, row)."""

    Options = FileOptions

    def read(self) -> Classes | dict[str, Classes]:
        if self.options.path is not None:
            return self._classes(self.options.path)
        files = (self.options.train, self.options.valid, self.options.test)
        return {split: self._classes(file) for split, file in zip(SPLITS, files, strict=True)}

    def where(self) -> str:
        return str(self.options.path or self.options.train)

    def rows(self, file: Path) -> Iterator[tuple[int, dict]]:
        """Line number and row of every row of a file."""
        raise AssertionError("every file source defines rows()")

    def _classes(self, file: Path) -> Classes:
        classes: dict[str, list[str]] = defaultdict(list)
        try:
            for line, row in self.rows(file):
                for key in (self.options.text, self.options.label):
                    if key not in row:
                        raise DataError(f"{file}:{line}: there is no field '{key}'; {nearest(key, map(str, row))}")
                    if not isinstance(row[key], (str, int)):
                        raise DataError(f"{file}:{line}: '{key}' is {type(row[key]).__name__}; expected a string")
                classes[str(row[self.options.label])].append(str(row[self.options.text]))
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not UTF-8 (byte {error.start}); expected UTF-8 text") from error
        if not classes:
            raise DataError(f"{file} holds no examples; expected one example a line")
        return classes


class JSONLines(FileSource):
    """One JSON object a line, with a text and a label field."""

    def rows(self, file: Path) -> Iterator[tuple[int, dict]]:
        with open(file, encoding="utf-8-sig") as stream:
            for line, content in enumerate(stream, 1):
                if not content.strip():
                    continue
                try:
                    row = json.loads(content)
                except json.JSONDecodeError as error:
                    raise DataError(f"{file}:{line}: not JSON ({error.msg}); expected one object a line") from error
                if not isinstance(row, dict):
                    raise DataError(f"{file}:{line}: a {type(row).__name__}; expected an object")
                yield line, row


class CSV(FileSource):
    """Comma-separated values with a header line, a text and a label column."""

    def rows(self, file: Path) -> Iterator[tuple[int, dict]]:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            try:
                for row in reader:
                    yield reader.line_num, {k: v for k, v in row.items() if k is not None and v is not None}
            except csv.Error as error:
                raise DataError(f"{file}:{reader.line_num}: not CSV ({error})") from error
