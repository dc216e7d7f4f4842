"""All facts of a report about one run, as plain data: what ``--json`` prints and what the HTML file shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas_meta.core.objectives import Objective
from nas_meta.errors import RunError, one_line
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL, METRICS, metric_of, shown_metrics
from nas_meta.journal.compared_models import UNTOUCHED, shown_name, untouched_key
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run, pareto, rank
from nas_meta.journal.status import read_status
from nas_meta.journal.verdict import paired_difference
from nas_meta.models.onnx.forms import TORCH
from nas_meta.outputs.explain.importances import as_dict, importances
from nas_meta.outputs.explain.path import path_to_winner
from nas_meta.outputs.explain.results import results_of
from nas_meta.outputs.report.cost import Rates, cost_of
from nas_meta.outputs.report.figures import front_axes
from nas_meta.outputs.report.formatting import short
from nas_meta.outputs.report.setting import data_of, device_of, recorded, reproduction_of
from nas_meta.outputs.snapshot import snapshot

ROWS, LEAST_ROWS = 40, 4  # rows of the front; a shorter one is followed by the next best trials
REASONS, CURVES = 20, 40  # reasons of failures, and learning curves
DRAWS = 100  # bootstrap samples of importances
SIZES = ("params", "flops")


def facts_of(run: Run, rates: Rates, phase: str | None = None) -> dict[str, Any]:
    """Collect everything that a report states about a run; nothing in it is executed.

    Args:
        run: The run; it may still be running.
        rates: What an hour of computing takes.
        phase: How the search ended, if that is known better than from its status file.

    Returns:
        Plain data. Facts that the run does not hold are None or empty.

    Raises:
        RunError: The journal is damaged.
    """
    run = snapshot(run)
    document, notes, created, seconds = recorded(run)
    trials, objectives, results = run.trials, run.objectives, results_of(run)
    ranked = rank(trials, objectives)
    winner = ranked[0] if ranked else None
    path = path_to_winner(run, results)
    counts = Counter(t.status for t in trials)
    return {
        "name": run.directory.resolve().name,
        "directory": str(run.directory),
        "phase": phase or _phase(run),
        "trials": {"total": len(trials), **{status: counts[status] for status in sorted(counts)}},
        "objectives": [{"metric": o.metric, "direction": o.direction} for o in objectives],
        "protocol": run.protocol,
        "class_names": run.class_names,
        "verdict": _verdict(run, winner),
        "winner": None if winner is None else _trial(run, winner),
        "before": _before(run),
        "table": [] if winner is None else table_rows(run, winner),
        "final_training": list(run.final_sentences.values()),
        "unmeasured": {shown_name(key, run.report): why for key, why in run.report.get("unmeasured", {}).items()},
        "front": None if winner is None else _front(run, trials, objectives, winner),
        "importances": [as_dict(result) for result in importances(results, objectives, DRAWS)],
        "path": None if path is None else path.as_dict(),
        "curves": _curves(run, trials, winner),
        "failures": _failures(trials),
        "cost": cost_of(run, document, device_of(run), seconds, rates),
        "data": data_of(run, document, notes),
        "reproduction": reproduction_of(run, document, created),
    }


def table_rows(run: Run, winner: Trial) -> list[dict[str, Any]]:
    """Return every model that was tested after the search, the most accurate first.

    Args:
        run: The run.
        winner: Its best trial.

    Returns:
        For each model its ``name``, ``kind`` (``trials``, ``references`` or ``comparisons``), test accuracy and
        interval, sizes, latency, and ``against``: the paired difference of the winner, in points and in words.
    """
    report = run.report
    right, queries = report.get("right", {}), report.get("queries", 0)
    own = right.get("trials", {}).get(str(winner.id), ())
    latencies = (report.get("latency") or {}).get("trials", {})
    rows = []
    for kind in ("trials", "comparisons", "references"):
        for name, metrics in report.get(kind, {}).items():
            chosen = kind == "trials" and name == str(winner.id)
            row = {
                "name": f"trial {name}" if kind == "trials" else one_line(shown_name(name, report)),
                "kind": kind, "chosen": chosen,
                "test_accuracy": _finite(metrics.get("test_accuracy")),
                "test_accuracy_ci95": _finite(metrics.get("test_accuracy_ci95")),
                "latency": latencies.get(name, {}).get("latency") if kind == "trials" else None,
            }  # fmt: skip
            sizes = metrics
            if kind == "trials":
                sizes = next((t.metrics for t in run.trials if str(t.id) == name), metrics)
            row |= {size: _finite(sizes.get(size)) or None for size in SIZES}
            row["against"] = None if chosen else _against(own, right.get(kind, {}).get(name, ()), queries)
            rows.append(row)
    return sorted(rows, key=lambda row: (-(row["test_accuracy"] or 0.0), not row["chosen"]))


def _against(own: Sequence[int], other: Sequence[int], queries: int) -> dict[str, Any]:
    """Return the paired difference of the winner and another model."""
    difference = paired_difference(own, other, queries)
    if difference is None:
        return {"mean": None, "low": None, "high": None, "sign": None, "words": "not tested on the same episodes"}
    low, high = difference.mean - difference.half, difference.mean + difference.half
    words = f"the winner is {difference}" if difference.sign else f"not distinguishable ({low:+.1f} to {high:+.1f})"
    return {"mean": difference.mean, "low": low, "high": high, "sign": difference.sign, "words": words}


def _verdict(run: Run, winner: Trial | None) -> str:
    """Return the verdict, or why there is none."""
    if winner is None:
        return "No trial was completed, so there is no verdict."
    if verdict := run.verdict:
        return one_line(verdict)
    metric = metric_of(run.objectives[0].metric)
    why = "no model that it could be compared with was tested" if run.report else "the search has not reached its end"
    return f"No verdict: {why}. The best trial is trial {winner.id}: {metric.title} {metric.format(winner.metrics)}."


def _phase(run: Run) -> str:
    try:
        return read_status(run).phase
    except RunError:
        return "done" if run.report else "unknown"


def _trial(run: Run, trial: Trial) -> dict[str, Any]:
    """Return a trial with its meta-test and latency."""
    timing = run.report.get("latency") or {}
    latency = timing.get("trials", {}).get(str(trial.id), {})
    return {
        "trial": trial.id, "architecture": dict(trial.architecture), "short": short(trial.architecture),
        "metrics": {name: _finite(value) for name, value in trial.metrics.items()},
        "test_accuracy": _finite(run.test_of(trial).get("test_accuracy")),
        "test_accuracy_ci95": _finite(run.test_of(trial).get("test_accuracy_ci95")),
        "latency": latency.get("latency"), "disturbed": bool(latency.get("latency_busy")),
        "latency_form": timing.get("form", TORCH),
    }  # fmt: skip


def _before(run: Run) -> dict[str, Any] | None:
    """Return the model that the user began with, if it was tested."""
    references = run.report.get("references", {})
    key = untouched_key(run.report)
    if key not in references:
        return None
    return {"name": UNTOUCHED, **{name: _finite(value) for name, value in references[key].items()}}


def _front(run: Run, trials: Sequence[Trial], objectives: Sequence[Objective], winner: Trial) -> dict[str, Any]:
    """Return the front with what each other choice would cost; a short front is followed by the next best trials."""
    axes = objectives if len(objectives) > 1 else front_axes(objectives)
    measured = [t for t in trials if all(o.metric in t.metrics for o in axes)]
    front = pareto(measured, sorted(axes, key=lambda o: o.metric != objectives[0].metric))
    on_front = {t.id for t in front}
    shown = front[:ROWS] if winner.id in {t.id for t in front[:ROWS]} else [winner, *front[: ROWS - 1]]
    others = [t for t in rank(trials, objectives) if t.id not in {s.id for s in shown}]
    shown += others[: max(0, LEAST_ROWS - len(shown))]
    names = [m.name for m in shown_metrics([o.metric for o in axes], winner.metrics)]
    rows = [
        {**_trial(run, t), "chosen": t.id == winner.id, "on_front": t.id in on_front,
         "costs": [] if t.id == winner.id else _costs(t, winner, names)}
        for t in shown
    ]  # fmt: skip
    return {"metrics": names, "rows": rows, "of": len(front)}


def _costs(trial: Trial, winner: Trial, names: Sequence[str]) -> list[str]:
    """Return the differences of a trial to the winner in words, such as ``accuracy -1.2 points``."""
    words = []
    for name in names:
        metric, value, base = metric_of(name), trial.metrics.get(name), winner.metrics.get(name)
        if value is None or base is None or not (math.isfinite(value) and math.isfinite(base)):
            continue
        if metric.unit == "%":
            words.append(f"{metric.title} {metric.scale * (value - base):+.1f} points")
        elif base and value != base:
            words.append(f"{metric.title} {100 * (value - base) / abs(base):+.0f} %")
    return words


def _curves(run: Run, trials: Sequence[Trial], winner: Trial | None) -> dict[str, Any]:
    """Return the accuracies that trials reported at rungs, with that of their end."""
    points: dict[int, dict[int, float]] = {}
    for report, _ in run.rung_reports:
        if len(report.scores):
            points.setdefault(report.trial, {})[report.step] = float(np.mean(report.scores))
    by_id = {t.id: t for t in trials}
    for number, curve in points.items():
        trial = by_id.get(number)
        if trial is not None and trial.status == "completed" and math.isfinite(trial.metrics[ACCURACY]):
            curve[trial.fidelity] = trial.metrics[ACCURACY]
    # Completed trials first, then the others, evenly spread.
    order = sorted((i for i in points if i in by_id), key=lambda i: (by_id[i].status != "completed", i))
    if len(order) > CURVES:
        order = [order[i] for i in np.linspace(0, len(order) - 1, CURVES).astype(int)]
        order = [winner.id, *order] if winner and winner.id in points and winner.id not in order else order
    rows = [
        {"trial": i, "status": by_id[i].status, "steps": sorted(points[i]),
         "accuracy": [points[i][step] for step in sorted(points[i])]}
        for i in order
    ]  # fmt: skip
    return {"rows": rows, "of": len(points)}


def _failures(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return the reasons of failures, the most frequent first, each with its last trial."""
    failed = [t for t in trials if t.status in ("failed", "timed-out")]
    counts = Counter(one_line(str(t.error)) for t in failed)
    last = {one_line(str(t.error)): t.id for t in failed}
    return [{"reason": reason, "trials": n, "last": last[reason]} for reason, n in counts.most_common(REASONS)]


def _finite(value: Any) -> float | None:
    """Return a number that JSON can hold; None for anything else."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def interval_text(row: Mapping[str, Any]) -> str:
    """Format a test accuracy with its interval.

    Args:
        row: A fact with ``test_accuracy`` and ``test_accuracy_ci95``.
    """
    values = {ACCURACY: row.get("test_accuracy"), ACCURACY + INTERVAL: row.get("test_accuracy_ci95")}
    return METRICS[ACCURACY].format({name: value for name, value in values.items() if value is not None})


def default_file(run: Run) -> Path:
    """Return where the report of a run is written by default.

    Args:
        run: The run.
    """
    return run.directory / "report.html"
