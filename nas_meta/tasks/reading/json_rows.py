"""Labelled examples in JSON: JSON Lines, an array of objects, or an object of splits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nas_meta.core.files import json_object
from nas_meta.errors import DataError
from nas_meta.tasks.reading.encoding import LINE_BREAK, open_text
from nas_meta.tasks.reading.row import Row

SPACE = " \t\r\n"
KINDS = {
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
}


def rows(file: Path, encoding: str, fields: Sequence[str]) -> Iterator[Row]:
    """Yield the objects in a JSON file.

    A file that begins with ``[`` is an array of objects. A file that begins with an object is JSON Lines if the object
    fills its first line, and has one of the expected fields or is followed by more lines. Any other file is one
    document: an object with an array of objects for each split, or objects that span several lines.

    Args:
        file: Regular file.
        encoding: Encoding of the file.
        fields: Names of fields that examples are expected to have.

    Yields:
        Objects with the line on which they start.

    Raises:
        DataError: The file is not JSON, or holds something else than objects.
    """
    if _is_lines(file, encoding, fields):
        with open_text(file, encoding) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    where = f"{file}:{number}"
                    yield Row(where, json_object(line, where))
        return
    with open_text(file, encoding) as stream:
        yield from _Document(file, stream.read()).rows(fields)


def _is_lines(file: Path, encoding: str, fields: Sequence[str]) -> bool:
    with open_text(file, encoding) as stream:
        lines = (line for line in stream if line.strip())
        first = next(lines, "")
        more = next(lines, None) is not None
    if first.lstrip().startswith("["):
        return False
    try:
        row = json.loads(first)
    except json.JSONDecodeError as error:  # an object that continues on the next line ends too early
        return not (first.lstrip().startswith("{") and more and error.pos >= len(first.rstrip()) - 1)
    except (ValueError, RecursionError):
        return True
    return more or not isinstance(row, dict) or not row or not _is_splits(row, fields)


def _is_splits(value: dict[str, Any], fields: Sequence[str]) -> bool:
    return not any(field in value for field in fields) and all(isinstance(v, list) for v in value.values())


class _Document:
    """A JSON document that is decoded value by value, so that each row is known with its line.

    Args:
        file: File of the document, for error messages.
        text: The whole document.
    """

    def __init__(self, file: Path, text: str):
        self.file, self.text = file, text
        self.position = 0
        self.line, self._counted = 1, 0
        self.decoder = json.JSONDecoder()

    def rows(self, fields: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of every top-level value."""
        while self._next():
            if self._next() == "[":
                yield from self._array("")
            elif self._next() == "{":
                yield from self._object(fields)
            else:
                raise self._wrong("not JSON; expected an array of objects, or an object of splits")

    def _object(self, fields: Sequence[str]) -> Iterator[Row]:
        """Yield an object that is a row, or the rows of each of its splits."""
        start, where, is_row = self.position, self._where(), False
        for _ in self._items("{}"):
            name = self._value()
            self._next()
            self._take(":")
            if name in fields:
                is_row = True
                break
            if self._next() != "[":
                raise self._wrong(f"'{name}' is {_kind(self._value())}; expected an array of objects for each split")
            yield from self._array(name)
        if is_row:
            self.position = start
            yield Row(where, self._value())

    def _array(self, split: str) -> Iterator[Row]:
        """Yield the objects of an array."""
        for _ in self._items("[]"):
            where = self._where()
            row = self._value()
            if not isinstance(row, dict):
                raise DataError(f"{where}: {_kind(row)}; expected an object")
            yield Row(where, row, split)

    def _items(self, brackets: str) -> Iterator[None]:
        """Stop at every item between brackets; the caller reads it before the next stop."""
        self._take(brackets[0])
        while self._next() != brackets[1]:
            yield
            if self._next() != brackets[1]:
                self._take(",")
        self._take(brackets[1])

    def _next(self) -> str:
        """Skip white space and return the next character; empty at the end."""
        while self.text[self.position : self.position + 1] in SPACE and self.position < len(self.text):
            self.position += 1
        return self.text[self.position : self.position + 1]

    def _take(self, character: str) -> None:
        if self.text[self.position : self.position + 1] != character:
            raise self._wrong(f"not JSON; expected '{character}'")
        self.position += 1

    def _value(self) -> Any:
        try:
            value, self.position = self.decoder.raw_decode(self.text, self.position)
        except (ValueError, RecursionError) as error:
            self.position = max(self.position, getattr(error, "pos", self.position))
            raise self._wrong(f"not JSON ({getattr(error, 'msg', None) or error})") from error
        return value

    def _where(self) -> str:
        """Return file and line of the position; lines are counted on from the last call, whose position was earlier."""
        self.line += len(LINE_BREAK.findall(self.text, self._counted, self.position))
        self._counted = self.position
        return f"{self.file}:{self.line}"

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self._where()}: {what}")


def _kind(value: Any) -> str:
    """Return how error messages name a JSON value."""
    return KINDS.get(type(value), "an object")
