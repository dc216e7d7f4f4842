"""Trials as a flat table: one column per attribute, metric and choice."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from nas_meta.errors import one_line
from nas_meta.journal.records import Trial

CHOICE = "architecture."  # begins the name of a choice's column
OWN = ("id", "status", "seed", "fidelity", "planned", "started", "finished", "seconds", "error", "architecture_id")


def columns_and_rows(trials: Sequence[Trial]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return trials as rows with the same columns.

    Args:
        trials: The trials, in the order of the rows.

    Returns:
        The names of the columns: the attributes of a trial, ``seconds``, the metrics, and the choices as
        ``architecture.NAME``. Then the rows; a row lacks the metrics and choices that its trial does not have.
    """
    metrics = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    choices = list(dict.fromkeys(name for trial in trials for name in trial.architecture))
    rows = []
    for t in trials:
        row: dict[str, Any] = {**t.metrics, **{f"{CHOICE}{name}": value for name, value in t.architecture.items()}}
        row |= {name: getattr(t, name) for name in OWN}
        rows.append(row)
    return [*OWN, *(m for m in metrics if m not in OWN), *(f"{CHOICE}{name}" for name in choices)], rows


def as_csv(trials: Sequence[Trial]) -> str:
    """Return trials as CSV with a header.

    Args:
        trials: The trials, in the order of the rows.

    Returns:
        The text; values that a trial does not have are empty.
    """
    columns, rows = columns_and_rows(trials)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: one_line(value) if isinstance(value, str) else value for name, value in row.items()})
    return out.getvalue()
