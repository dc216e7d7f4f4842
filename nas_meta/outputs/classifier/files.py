"""Labelled files and lists of texts that the command line classifies."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas_meta.core.files import is_encodable, regular_file, why_unreadable
from nas_meta.errors import DataError
from nas_meta.outputs.export.task_model import READERS, read_examples
from nas_meta.tasks.examples import normalised
from nas_meta.tasks.reading import delimited, json_rows
from nas_meta.tasks.reading.encoding import open_text, text_encoding
from nas_meta.tasks.reading.row import Row
from nas_meta.tasks.sources.files import CSV


def read_support(file: Path, text: str, label: str) -> tuple[list[str], list[str]]:
    """Read a labelled file.

    Args:
        file: JSON Lines or CSV file.
        text: Name of the text field.
        label: Name of the label field.

    Returns:
        The texts and the label of each.

    Raises:
        DataError: The file cannot be read, or a label has no text.
    """
    examples = read_examples(file, text, label)
    for name, members in examples.items():
        if not any(str(member).strip() for member in members):
            raise DataError(f"{file}: the class '{name}' has no text; expected at least one example of every class")
    pairs = [(member, name) for name, members in examples.items() for member in members if str(member).strip()]
    return [str(member) for member, _ in pairs], [name for _, name in pairs]


def read_labelled(file: Path, text: str, label: str) -> tuple[list[str], list[str]]:
    """Read every row of a labelled file; unlike a support file, equal texts count as often as they stand there.

    Args:
        file: CSV, TSV, JSON or JSON Lines file.
        text: Name of the text field.
        label: Name of the label field.

    Returns:
        The texts and the label of each, in the order of the file.

    Raises:
        DataError: The file cannot be read, a row lacks a field, or there are no rows.
    """
    rows = [(_field(row, text), _field(row, label)) for row in _rows(file, [text, label])]
    if not rows:
        raise DataError(f"{file} contains no examples; expected rows with a text and a label")
    return [given for given, _ in rows], [normalised(name) for _, name in rows]


def read_texts(file: Path, text: str) -> list[str]:
    """Read the texts of a file: a field of CSV, TSV, JSON or JSON Lines, or the lines of a ``.txt`` file.

    Encoding and delimiter are recognised as those of task sources are.

    Args:
        file: The file.
        text: Name of the text field.

    Returns:
        The texts, in the order of the file.

    Raises:
        DataError: The file cannot be read, a row lacks the field, or there are no texts.
    """
    found = _lines(file) if file.suffix == ".txt" else [_field(row, text) for row in _rows(file, [text])]
    if not found:
        raise DataError(f"{file} contains no texts; expected at least one")
    return found


def write_predictions(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write predictions as CSV, or as JSON Lines if the file ends with ``.jsonl``.

    Args:
        file: The file; an existing one is replaced.
        rows: Text, label and probability of each prediction.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        with open(file, "w", encoding="utf-8", newline="") as out:
            if file.suffix == ".jsonl":
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                return
            writer = csv.DictWriter(out, ["text", "label", "probability"])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror or error}") from error


def _lines(file: Path) -> list[str]:
    """Return the lines of a text file that are not blank."""
    try:
        with open_text(file, text_encoding(regular_file(file)).name) as stream:
            return [line for line in stream.read().splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{file} cannot be read: {why_unreadable(file, error)}") from error


def _rows(file: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a file, as task sources read them."""
    if file.suffix not in READERS:
        endings = ", ".join(READERS)
        raise DataError(f"{file} is not a supported file; expected a file that ends with {endings} or .txt")
    try:
        encoding = text_encoding(regular_file(file)).name
        if READERS[file.suffix] is CSV:
            return list(delimited.rows(file, delimited.recognise(file, encoding, columns), columns))
        return list(json_rows.rows(file, encoding, columns))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {why_unreadable(file, error)}") from error


def _field(row: Row, name: str) -> str:
    """Return a field of a row as text."""
    value = row.fields.get(name)
    text = str(value) if isinstance(value, (str, int)) else ""
    if not text.strip() or not is_encodable(text):
        raise DataError(f"{row.where}: there is no text in the field '{name}'; expected one in every row")
    return text
