"""Which columns of a file hold the texts and the classes, for files about which nothing is known yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from nas_meta.core.files import regular_file
from nas_meta.errors import DataError
from nas_meta.tasks.reading import delimited, json_rows
from nas_meta.tasks.reading.encoding import text_encoding

CSV, JSON = "csv", "jsonl"  # names of the task sources
SUFFIXES = {".csv": CSV, ".tsv": CSV, ".tab": CSV, ".jsonl": JSON, ".json": JSON, ".ndjson": JSON}
TEXTS = ("text", "sentence", "utterance", "query", "question", "message", "content", "description", "review", "body",
         "title", "subject", "document", "input")  # fmt: skip
LABELS = ("label", "intent", "class", "category", "target", "topic", "tag", "type", "queue", "sentiment", "label_text",
          "output")  # fmt: skip
MOST_ROWS = 2000  # that are looked at


def source_of(file: Path) -> str:
    """Return the task source that reads a file: by its suffix, otherwise by its first character.

    Args:
        file: The file.

    Returns:
        ``csv`` or ``jsonl``.

    Raises:
        OSError: The file cannot be read.
    """
    known = SUFFIXES.get(file.suffix.lower())
    if known is not None:
        return known
    with open(regular_file(file), "rb") as stream:
        return JSON if stream.read(1024).lstrip()[:1] in (b"{", b"[") else CSV


def first_rows(file: Path, source: str) -> list[Mapping[str, Any]]:
    """Read the first rows of a file whose columns are not known.

    Args:
        file: The file.
        source: ``csv`` or ``jsonl``.

    Returns:
        Fields by name.

    Raises:
        DataError: The file is not of that format.
        OSError: The file cannot be read.
    """
    encoding = text_encoding(regular_file(file)).name
    if source == CSV:
        rows = delimited.rows(file, delimited.recognise(file, encoding, ()), ())
    else:
        rows = json_rows.rows(file, encoding, ())
    return [row.fields for row in islice(rows, MOST_ROWS)]


def guess_columns(
    rows: Sequence[Mapping[str, Any]], file: Path, text: str | None = None, label: str | None = None
) -> tuple[str, str]:
    """Return the columns with the texts and the classes.

    A column with a usual name is taken; otherwise the text is the column with the longest values, and the label is the
    column whose values repeat most often.

    Args:
        rows: Rows of the file.
        file: The file, for the message.
        text: The column with the text, if it is known.
        label: The column with the class, if it is known.

    Returns:
        The names of the columns.

    Raises:
        DataError: There is no other column that could be the one or the other.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row if isinstance(name, str) and name))
    if text is None:
        text = _named(columns, TEXTS, label) or _by(rows, columns, _length, label)
    if label is None:
        label = _named(columns, LABELS, text) or _by(rows, columns, _repetition, text)
    if not columns:
        raise DataError(f"{file} contains no examples; expected rows with a text and a label")
    if text is None or label is None:
        raise DataError(
            f"{file} has the columns {', '.join(map(repr, columns))}; expected one with texts and one with classes, "
            "named by --text and --label"
        )
    return text, label


def _named(columns: Sequence[str], usual: Sequence[str], taken: str | None) -> str | None:
    """Return the column whose name is the first of the usual ones."""
    by_name = {name.strip().lower(): name for name in reversed(columns) if name != taken}
    return next((by_name[name] for name in usual if name in by_name), None)


def _by(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], score: Any, taken: str | None) -> str | None:
    """Return the column of texts with the highest score; None if no column has one above 0."""
    scores = {}
    for name in columns:
        values = [row.get(name) for row in rows]
        if name != taken and all(isinstance(v, (str, int)) or v is None for v in values):
            scores[name] = score([str(v) for v in values if v not in (None, "")])
    best = max(scores, key=lambda name: scores[name], default=None)
    return best if best is not None and scores[best] > 0 else None


def _length(values: Sequence[str]) -> float:
    return sum(map(len, values)) / max(1, len(values))


def _repetition(values: Sequence[str]) -> float:
    """Return how often a value occurs on average; 0 for a column with a single value or without repetitions."""
    distinct = len(set(values))
    return len(values) / distinct if 1 < distinct < len(values) else 0.0
