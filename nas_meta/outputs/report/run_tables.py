"""Tables of several runs: a list of them, and a comparison side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import LATENCY, metric_of, of_form, shown_metrics
from nas_meta.journal.run import Run
from nas_meta.journal.run_list import RunSummary, summary_of
from nas_meta.models.onnx.forms import TORCH
from nas_meta.outputs.report.formatting import compact
from nas_meta.outputs.report.listing import Listing

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))  # seconds in a unit of an age
NOT_COMPARED = ("run_dir",)  # keys that differ between any two runs


def ago(seconds: float) -> str:
    """Format an age in its largest unit, such as ``3 h ago``.

    Args:
        seconds: The age; negative ones, of a clock that was set back, count as 0.
    """
    seconds = max(0.0, seconds)
    size, unit = next((u for u in UNITS if seconds >= u[0]), UNITS[-1])
    return f"{int(seconds // size)} {unit} ago"


def runs_table(runs: Sequence[RunSummary], now: float | None = None) -> Listing:
    """Build the table of ``nas-meta runs``.

    Args:
        runs: The runs, in the order of the table.
        now: Seconds since the epoch that ages are counted to; by default the current time.

    Returns:
        The table; the details are the directories, with the reasons of failures.
    """
    now = time.time() if now is None else now
    table = Listing("run")
    for title, justify in (("state", "left"), ("trials", "right"), ("best", "right"), ("changed", "right")):
        table.add_column(title, "right" if justify == "right" else "left")
    for run in runs:
        best = metric_of(run.metric).format(run.best.metrics) if run.best is not None else ""
        trials = f"{run.trials}" + (f"/{run.total}" if run.total is not None else "")
        detail = one_line(str(run.directory)) + (f" ({one_line(run.error)})" if run.error else "")
        table.add_row(run.state, trials, best, ago(now - run.changed), detail=detail)
    return table


def comparison(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Collect what several runs found, and the keys of their configs that differ.

    Args:
        runs: The runs.

    Returns:
        For each run its ``run``, ``state`` and ``trials``, the ``best`` trial with its id, metrics, test metrics and
        architecture, and ``config`` with the values of the keys that are not the same in all of them.

    Raises:
        RunError: A run cannot be read.
    """
    configs = [dict(_leaves(run.recorded)) for run in runs]
    keys = [key for key in dict.fromkeys(k for config in configs for k in config) if key not in NOT_COMPARED]
    differing = [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs)]
    rows = []
    for run, config in zip(runs, configs, strict=True):
        summary = summary_of(run.directory)
        best = summary.best
        timing = run.report.get("latency") or {}
        latencies, form = timing.get("trials", {}), timing.get("form", TORCH)
        found: dict[str, Any] | None = None
        if best is not None:
            measured = {k: v for k, v in latencies.get(str(best.id), {}).items() if isinstance(v, (int, float))}
            measured = {k.replace(LATENCY, of_form(LATENCY, form), 1): v for k, v in measured.items()}
            found = {"id": best.id, "metrics": {**best.metrics, **measured}, "test": dict(run.test_of(best))}
            found["architecture"] = dict(best.architecture)
        row = {"run": str(run.directory), "state": summary.state, "trials": summary.trials, "total": summary.total}
        row |= {"steps": run.steps.taken, "objectives": [o.metric for o in run.objectives], "best": found}
        rows.append(row | {"config": {key: config.get(key) for key in differing}})
    return rows


def comparison_table(rows: Sequence[Mapping[str, Any]], lines: bool = True) -> Table:
    """Build the table of a comparison, with one column per run.

    Args:
        rows: What :func:`comparison` returned.
        lines: Whether there are lines between its columns.

    Returns:
        The table.
    """
    table = Table() if lines else Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for row in rows:
        table.add_column(Text(one_line(row["run"])), overflow="fold")
    names = list(dict.fromkeys(name for row in rows for name in row["objectives"]))
    measured = {name for row in rows if row["best"] for name in row["best"]["metrics"]}
    accuracy, *others = shown_metrics([*names, LATENCY], measured)
    facts: list[tuple[str, list[str]]] = [
        ("state", [row["state"] for row in rows]),
        ("trials", [f"{r['trials']}" + ("" if r["total"] is None else f"/{r['total']}") for r in rows]),
        ("steps", [f"{row['steps']:,}" for row in rows]),
        ("best trial", [str(row["best"]["id"]) if row["best"] else "" for row in rows]),
        ("meta-validation", [accuracy.format(row["best"]["metrics"]) if row["best"] else "" for row in rows]),
        ("meta-test", [accuracy.format(row["best"]["test"], prefix="test_") if row["best"] else "" for row in rows]),
    ]
    for metric in others:
        facts.append((metric.title, [metric.format(row["best"]["metrics"]) if row["best"] else "" for row in rows]))
    facts.append(("architecture", [compact(row["best"]["architecture"]) if row["best"] else "" for row in rows]))
    for key in rows[0]["config"] if rows else ():
        facts.append((one_line(key), [one_line(str(row["config"][key])) for row in rows]))
    for name, cells in facts:
        if any(cells):
            table.add_row(name, *map(Text, cells))
    return table


def _leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted key."""
    if isinstance(document, Mapping) and document:
        for key, inner in document.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, document
