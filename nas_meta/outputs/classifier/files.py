"""Labelled files and lists of texts that the command line classifies."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas_meta.core.files import regular_file
from nas_meta.errors import DataError
from nas_meta.outputs.export.task_model import read_examples


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


def read_texts(file: Path, text: str) -> list[str]:
    """Read the texts of a file: a field of CSV or JSON Lines, or the lines of a ``.txt`` file.

    Args:
        file: The file.
        text: Name of the text field.

    Returns:
        The texts, in the order of the file.

    Raises:
        DataError: The file cannot be read, a row lacks the field, or there are no texts.
    """
    try:
        content = regular_file(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 (byte {error.start}); expected a UTF-8 file") from error
    if file.suffix == ".txt":
        found = [line for line in content.splitlines() if line.strip()]
    elif file.suffix in (".csv", ".jsonl"):
        rows = _csv_rows(content) if file.suffix == ".csv" else _json_rows(file, content)
        found = [_field(file, number, row, text) for number, row in rows]
    else:
        raise DataError(f"{file} is not a supported file; expected a file that ends with .csv, .jsonl or .txt")
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


def _csv_rows(content: str) -> list[tuple[int, Any]]:
    """Return the rows of a CSV file with their numbers."""
    csv.field_size_limit(2**31 - 1)
    return list(enumerate(csv.DictReader(content.splitlines(keepends=True)), start=2))


def _json_rows(file: Path, content: str) -> list[tuple[int, Any]]:
    """Return the objects of a JSON Lines file with the numbers of their lines."""
    rows = []
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}:{number}: the line is not JSON; expected one object per line") from error
    return rows


def _field(file: Path, number: int, row: Any, text: str) -> str:
    """Return the text of a row."""
    value = row.get(text) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{file}:{number}: there is no text in the field '{text}'; expected one in every row")
    return value
