"""Labelled texts that Python objects hold: columns, rows, pairs, and tables of pandas or Hugging Face datasets.

Tables are recognised by what they offer, not by their type: neither pandas nor datasets has to be installed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_meta.core.files import is_encodable
from nas_meta.core.guard import type_name
from nas_meta.core.wording import counted
from nas_meta.errors import DataError
from nas_meta.tasks.reading.columns import LABELS, TEXTS

KINDS = (
    "a dict of texts and labels, a list of pairs (text, label), a data frame of pandas, or a dataset of Hugging Face "
    "datasets"
)
TO_LIST = ("tolist", "to_list", "to_pylist")  # of pandas and numpy, of polars, of pyarrow
MISSING = ("NAType", "NaTType")  # types of pandas that compare with nothing
PAIR = 2
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Columns:
    """The columns with the texts, the classes and, if there are any, the groups; None recognises the first two.

    Attributes:
        text: Name of the column with the texts.
        label: Name of the column with the classes.
        group: Name of the column that divides the examples into tasks; None if there is none.
    """

    text: str | None = None
    label: str | None = None
    group: str | None = None

    def named(self) -> dict[str, str | None]:
        """Return the names by the field that the column becomes."""
        return {"text": self.text, "label": self.label, **({"group": self.group} if self.group else {})}


def rows_of(data: Any, columns: Columns, splits: Sequence[str]) -> dict[str, Rows]:
    """Return labelled examples as rows.

    Args:
        data: Texts with labels, or such data for each split by its name.
        columns: The columns, where the data have some.
        splits: Names that splits may have.

    Returns:
        For each split, or for the split ``""`` if the data have none, rows with ``text``, ``label`` and ``group``.

    Raises:
        DataError: The data are of another kind; they are empty or have a single class; a column is missing; lengths
            differ; or a value is missing or not text.
    """
    if isinstance(data, Mapping) and data and all(isinstance(k, str) and k.lower() in splits for k in data):
        found = {name: list(_rows(part, columns, f"data[{name!r}]")) for name, part in data.items()}
        found = found if len(found) > 1 else {"": next(iter(found.values()))}
    else:
        found = {"": list(_rows(data, columns, "data"))}
    labels = Counter(row["label"].strip() for rows in found.values() for row in rows)
    if len(labels) == 1 and columns.group is None:
        raise DataError(
            f"data has a single class, '{next(iter(labels))}'; expected several, because models are trained, chosen "
            "and tested on different classes"
        )
    return found


def as_json(rows: Mapping[str, Rows]) -> bytes:
    """Return rows as a file that the task source ``jsonl`` reads.

    Args:
        rows: Rows by split, as :func:`rows_of` returns them.

    Returns:
        JSON Lines; with several splits an object with an array for each of them. UTF-8.
    """
    if list(rows) == [""]:
        return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows[""]).encode()
    return json.dumps(rows, ensure_ascii=False, indent=0).encode()


@dataclass(frozen=True)
class _Column:
    """Values of a column, and the Python expressions that messages name them by."""

    place: str
    values: list[Any]
    inner: str = ""

    def at(self, index: int) -> str:
        return f"{self.place}[{index}]{self.inner}"


def _rows(data: Any, columns: Columns, where: str) -> Iterator[dict[str, str]]:
    """Yield the rows of one split."""
    named = _columns(data, columns, where)
    lengths = {column.place: len(column.values) for column in named.values()}
    if len(set(lengths.values())) > 1:
        counts = " and ".join(f"{place} has {counted(count, 'value')}" for place, count in lengths.items())
        raise DataError(f"{counts}; expected as many labels as texts")
    if not any(lengths.values()):
        raise DataError(f"{where} is empty; expected texts with their labels")
    checked = {
        key: [_value(v, key, column.at(i)) for i, v in enumerate(column.values)] for key, column in named.items()
    }
    yield from (dict(zip(checked, row, strict=True)) for row in zip(*checked.values(), strict=True))


def _columns(data: Any, columns: Columns, where: str) -> dict[str, _Column]:
    """Return the values of ``text``, ``label`` and ``group``."""
    if isinstance(data, tuple) and len(data) == PAIR and not any(isinstance(p, (str, tuple, Mapping)) for p in data):
        data = dict(zip((columns.text or "text", columns.label or "label"), data, strict=True))  # (texts, labels)
    names = next((n for n in (getattr(data, a, None) for a in ("column_names", "columns")) if n is not None), None)
    if isinstance(data, Mapping):
        names = data
    if names is not None and not callable(names) and hasattr(data, "__getitem__"):
        return _of_table(data, list(names), columns, where)
    if isinstance(data, (str, bytes)) or not isinstance(data, Sequence):
        raise DataError(f"{where} is {type_name(data)}; expected {KINDS}")
    if data and all(isinstance(row, Mapping) for row in data):
        keys = list(dict.fromkeys(key for row in data for key in row))
        return _of_table({key: [row.get(key) for row in data] for key in keys}, keys, columns, where)
    if columns.group is not None:
        raise DataError(
            f"tasks.group is '{columns.group}', but {where} is a list of pairs; expected a table with that column"
        )
    for index, row in enumerate(data):
        if isinstance(row, str) or not isinstance(row, Sequence) or len(row) != PAIR:
            raise DataError(f"{where}[{index}] is {_shown(row)}; expected a pair (text, label)")
    return {key: _Column(where, [row[i] for row in data], f"[{i}]") for i, key in enumerate(("text", "label"))}


def _of_table(data: Any, names: list[Any], columns: Columns, where: str) -> dict[str, _Column]:
    """Return the columns of a table."""
    by_name = {str(name): name for name in names}
    chosen: dict[str, str] = {}
    for key, wanted in columns.named().items():
        name = wanted if wanted is not None else _recognised(key, list(by_name), chosen.values())
        if name not in by_name:
            fix = f"expected tasks.{key} to name one of {', '.join(by_name)}" if by_name else "it has no columns"
            raise DataError(f"{where} has no column '{name}'; {fix}")
        if sum(str(other) == name for other in names) > 1:
            raise DataError(f"{where} has several columns '{name}'; expected one")
        chosen[key] = name
    found = {}
    for key, name in chosen.items():
        place, column = f"{where}[{name!r}]", data[by_name[name]]
        convert = next((getattr(column, method) for method in TO_LIST if hasattr(column, method)), None)
        if convert is None and (isinstance(column, (str, bytes, Mapping)) or not hasattr(column, "__iter__")):
            raise DataError(f"{place} is {type_name(column)}; expected a list")
        values = convert() if convert is not None else list(column)
        names_of_classes = getattr((getattr(data, "features", None) or {}).get(name), "names", None)
        if key == "label" and names_of_classes:  # numbers of a ClassLabel of datasets
            values = [_class_name(value, names_of_classes) for value in values]
        found[key] = _Column(f"{place}.iloc" if hasattr(column, "iloc") else place, values)
    return found


def _recognised(key: str, names: Sequence[str], taken: Any) -> str:
    """Return the column whose name is the key, its plural, or another usual one; the key itself if there is none."""
    usual = [word for name in (TEXTS if key == "text" else LABELS) for word in (name, f"{name}s")]
    by_name = {name.strip().lower(): name for name in reversed(names) if name not in taken}
    return next((by_name[word] for word in usual if word in by_name), key)


def _class_name(value: Any, names: Sequence[str]) -> Any:
    known = isinstance(value, int) and 0 <= value < len(names)
    return names[value] if known else value


def _value(value: Any, key: str, where: str) -> str:
    """Return a value as text."""
    if value is None or type(value).__name__ in MISSING or (isinstance(value, float) and value != value):
        raise DataError(f"{where} is missing ({value}); expected {_expected(key)}, or leave the row out")
    number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not isinstance(value, str) and (key == "text" or not number):
        raise DataError(f"{where} is {_shown(value)}; expected {_expected(key)}")
    text = str(value)
    if not is_encodable(text):
        raise DataError(f"{where} contains a lone surrogate; expected text that UTF-8 can encode")
    if key != "text" and not text.strip():
        raise DataError(f"{where} is empty; expected {_expected(key)}")
    return text


def _expected(key: str) -> str:
    return {"text": "a text", "label": "the name or number of a class"}.get(key, "the name or number of a group")


def _shown(value: Any) -> str:
    shown = value if isinstance(value, (str, int, float)) else ""
    return f"{type_name(value)} {shown!r}".removesuffix(" ''")
