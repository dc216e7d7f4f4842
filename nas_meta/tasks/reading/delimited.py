"""Delimited text (CSV, TSV): the layout of a file is recognised, then its rows are read.

Spreadsheets and databases disagree about delimiters and quotes. The column names that the user gives decide: the
delimiter is the one that makes them columns of the header.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas_meta.errors import DataError, nearest
from nas_meta.tasks.reading.encoding import open_text
from nas_meta.tasks.reading.row import Row

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SEP = re.compile(r'"?sep=(.)"?[,;\t|]*', re.I)  # the first line with which Excel is given the delimiter
LARGEST_FIELD = 2**31 - 1  # the csv module's default, 131,072 characters, is less than a long document

DOUBLED, BACKSLASH, NONE = "doubled", "backslash", "none"
QUOTING: dict[str, dict[str, Any]] = {
    DOUBLED: {"strict": True},
    BACKSLASH: {"strict": True, "escapechar": "\\"},
    NONE: {"quoting": csv.QUOTE_NONE},
}


@dataclass(frozen=True)
class Layout:
    """How a file separates and quotes its values.

    Attributes:
        encoding: Encoding of the file.
        delimiter: Character between values.
        quoting: How a quote is written inside quotes: ``doubled`` as in RFC 4180, or ``backslash``; ``none`` if quotes
            are ordinary characters, as in much tab-separated text.
        padded: Whether spaces follow the delimiter.
        notes: Sentences about what was recognised and is not plain CSV.
    """

    encoding: str
    delimiter: str = ","
    quoting: str = DOUBLED
    padded: bool = False
    notes: tuple[str, ...] = ()


def recognise(file: Path, encoding: str, columns: Sequence[str], delimiter: str | None = None) -> Layout:
    """Recognise the layout of a delimited file.

    Args:
        file: Regular file.
        encoding: Encoding of the file.
        columns: Names of columns that the header should have.
        delimiter: Delimiter that the user named; None to recognise it.

    Returns:
        The layout.
    """
    layout, notes = Layout(encoding), []
    if delimiter is None:
        delimiter = _sep_line(file, encoding) or _delimiter(file, layout, columns)
        if delimiter != ",":
            notes.append(f"{file} is read with {DELIMITERS.get(delimiter, repr(delimiter))} between its values")
    layout = replace(layout, delimiter=delimiter)
    layout = replace(layout, padded=any(name.startswith(" ") for name in _header(file, layout)))
    layout = replace(layout, quoting=_quoting(file, layout))
    if layout.quoting == BACKSLASH:
        notes.append(f"{file} is read with backslashes before quotes inside quotes")
    if layout.quoting == NONE:
        notes.append(f"{file} is read with quotes as ordinary characters")
    return replace(layout, notes=tuple(notes))


def rows(file: Path, layout: Layout, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows below the header of a delimited file; rows without values are skipped.

    Args:
        file: Regular file.
        layout: Layout of the file.
        columns: Names of columns that the header must have, each once.

    Yields:
        Rows with the line on which they start.

    Raises:
        DataError: The header lacks a column, a row does not fit it, or the file breaks the rules of its layout.
    """
    records = _records(file, layout)
    line, header = next(records, (1, []))
    header = [name.strip() for name in header]
    for name in columns if header else ():
        if header.count(name) > 1:
            raise DataError(f"{file}:{line}: {header.count(name)} columns are named '{name}'; expected one")
        if name not in header:
            named = [known for known in header if known]
            raise DataError(f"{file}:{line}: there is no column '{name}'; {nearest(name, named)}")
    needed = max(map(header.index, columns), default=-1) + 1 if header else 0
    for line, values in records:
        if _is_too_long(values, header):
            between = DELIMITERS.get(layout.delimiter, repr(layout.delimiter))
            raise DataError(
                f"{file}:{line}: the row has {len(values)} values, but the header has {len(header)}; expected quotes "
                f"around values that contain {between}"
            )
        if len(values) < needed:
            raise DataError(
                f"{file}:{line}: there is no field '{header[needed - 1]}'; the row has {len(values)} of the "
                f"{len(header)} values of the header"
            )
        yield Row(f"{file}:{line}", dict(zip(header, values, strict=False)))


def _records(file: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield the values of every record that has some, with the line on which the record starts."""
    with open_text(file, layout.encoding) as stream:
        lines: Iterable[str] = _without_sep_line(stream)
        if layout.quoting == BACKSLASH:
            lines = _protected(lines, layout.delimiter)
        limit = csv.field_size_limit()
        reader = csv.reader(
            lines, delimiter=layout.delimiter, skipinitialspace=layout.padded, **QUOTING[layout.quoting]
        )
        while True:
            line = reader.line_num + 1
            csv.field_size_limit(LARGEST_FIELD)  # of the process: set for one record at a time, then restored
            try:
                values = next(reader, None)
            except csv.Error as error:
                unclosed = "unexpected end of data" in str(error)
                reason = "a quote that this row opens is never closed" if unclosed else str(error)
                raise DataError(f"{file}:{line}: not CSV ({reason})") from error
            finally:
                csv.field_size_limit(limit)
            if values is None:
                return
            if any(value.strip() for value in values):
                yield line, values


def _is_too_long(values: Sequence[str], header: Sequence[str]) -> bool:
    return any(value.strip() for value in values[len(header) :])


def _without_sep_line(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines, with a blank one in place of a first line such as ``sep=;``, so that line numbers stay true."""
    for number, line in enumerate(lines):
        yield "\n" if number == 0 and SEP.fullmatch(line.rstrip("\r\n")) else line


def _sep_line(file: Path, encoding: str) -> str | None:
    with open_text(file, encoding) as stream:
        match = SEP.fullmatch(stream.readline().rstrip("\r\n"))
    return match[1] if match and is_delimiter(match[1]) else None


def is_delimiter(character: str) -> bool:
    """Return whether a character can separate values."""
    return len(character) == 1 and character not in '"\\\r\n\0'


def _header(file: Path, layout: Layout) -> list[str]:
    """Return the values of the first record; none if it cannot be read, which :func:`rows` will report."""
    try:
        return next(_records(file, layout), (1, []))[1]
    except DataError:
        return []


def _delimiter(file: Path, layout: Layout, columns: Sequence[str]) -> str:
    """Return the first delimiter whose header has the columns; else the one whose header has the most."""
    headers = {d: _header(file, replace(layout, delimiter=d, padded=d != "\t")) for d in DELIMITERS}
    names = {d: {name.strip() for name in header} for d, header in headers.items()}
    return max(DELIMITERS, key=lambda d: (names[d] >= set(columns), len(headers[d])))


def _quoting(file: Path, layout: Layout) -> str:
    """Return the first way of quoting in which every record can be read; the standard one if there is none."""
    with open_text(file, layout.encoding) as stream:
        quotes = backslashes = False
        for line in stream:
            quotes = quotes or '"' in line
            backslashes = backslashes or '\\"' in line
    ways = [BACKSLASH] * backslashes + [NONE] * (quotes and layout.delimiter == "\t")
    if not ways:
        return DOUBLED
    return next((way for way in (DOUBLED, *ways) if _fits(file, replace(layout, quoting=way))), DOUBLED)


def _fits(file: Path, layout: Layout) -> bool:
    """Return whether every record of a file can be read and has no more values than the header."""
    records = _records(file, layout)
    try:
        _, header = next(records, (1, []))
        return not any(_is_too_long(values, header) for _, values in records)
    except DataError:
        return False


def _protected(lines: Iterable[str], delimiter: str) -> Iterator[str]:
    r"""Double the backslashes that escape nothing, so that the csv module keeps them.

    Only a quote, a delimiter and a backslash can be escaped: in ``"C:\new \"x\""`` the first backslash is text.
    """
    escape = re.compile(rf'\\(["\\{re.escape(delimiter)}])|\\')
    for line in lines:
        yield escape.sub(lambda match: match[0] if match[1] else r"\\", line)
