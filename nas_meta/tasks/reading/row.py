"""A row of a file with labelled examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one example, and where they stand.

    Attributes:
        where: File and line on which the row starts, or file and number of the row in a table, such as ``data.csv:3``.
        fields: Values by the name of their field or column.
        split: Name that the file gives the split of the row, such as ``train``; empty if the file has no splits.
    """

    where: str
    fields: dict[str, Any]
    split: str = ""
