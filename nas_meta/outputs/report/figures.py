"""Figures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.core.objectives import Objective, front_ranks, hypervolume
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL, METRICS, Metric, metric_of
from nas_meta.journal.records import Trial
from nas_meta.journal.run import pareto, rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMED = 12  # trials of the front whose ids are in the figure, about


def front_figure(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Figure:
    """Draw every completed trial and the Pareto front, the first objective against the second.

    Args:
        trials: Trials of any status.
        objectives: Objectives of the search, the first one first. If there is only one, the other axis shows FLOPs, or
            the accuracy if that objective is FLOPs.

    Returns:
        The figure, with 95% intervals over episodes where they are known, and the IDs of trials on the front.
    """
    from matplotlib.figure import Figure

    vertical, horizontal = _axes(objectives)
    y, x = metric_of(vertical.metric), metric_of(horizontal.metric)
    done = [t for t in rank(trials, [vertical]) if x.name in t.metrics]
    front = sorted(pareto(done, [vertical, horizontal]), key=lambda t: t.metrics[x.name])
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    intervals = [y.scale * t.metrics.get(y.name + INTERVAL, 0.0) for t in done]
    label = "trials (95% interval)" if any(intervals) else "trials"
    axes.errorbar(*_points(done, x, y), intervals, fmt="o", ms=4, lw=0.7, color="#9aa5b1", label=label)
    axes.step(*_points(front, x, y), where="post", marker="o", color="#d1495b", label="Pareto front")
    for trial in front[:: max(1, len(front) // MOST_NAMED)]:
        place = (x.scale * trial.metrics[x.name], y.scale * trial.metrics[y.name])
        axes.annotate(f"{trial.id}", place, xytext=(4, -9), textcoords="offset points", fontsize=7, color="#d1495b")
    axes.set_xlabel(x.axis)
    axes.set_ylabel(f"meta-validation {y.axis}" if y.name == ACCURACY else y.axis)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def dominated(trials: Sequence[Trial], objectives: Sequence[Objective]) -> float:
    """Compute the hypervolume of the Pareto front, in units that all objectives share.

    A value to maximise counts from 0, as accuracy does; a value to minimise counts as the share that it saves of the
    largest value so far. So 0.6 may be an accuracy of 75 % at a fifth of the largest FLOPs.

    Args:
        trials: Trials of any status.
        objectives: Objectives of the search.

    Returns:
        The hypervolume, see :func:`nas_meta.core.objectives.hypervolume`; 0 without completed trials.
    """
    done = [t for t in trials if t.status == "completed" and all(o.metric in t.metrics for o in objectives)]
    if not done:
        return 0.0
    columns = []
    for objective in objectives:
        values = np.array([t.metrics[objective.metric] for t in done], dtype=float)
        largest = np.abs(values).max() or 1.0
        columns.append(values if objective.sign > 0 else 1 - values / largest)
    points = np.unique(np.stack(columns, 1), axis=0)
    return hypervolume(points[front_ranks(points) == 0], np.zeros(len(objectives)))


def _axes(objectives: Sequence[Objective]) -> tuple[Objective, Objective]:
    """Return the objectives of the vertical and the horizontal axis; accuracy, if among them, is vertical."""
    flops = Objective("flops", METRICS["flops"].direction)
    first, *others = objectives
    other = others[0] if others else flops if first.metric != flops.metric else Objective(ACCURACY)
    return (other, first) if other.metric == ACCURACY else (first, other)


def _points(trials: Sequence[Trial], x: Metric, y: Metric) -> tuple[list[float], list[float]]:
    """Return the coordinates of trials, in the units in which the metrics are shown."""
    return [x.scale * t.metrics[x.name] for t in trials], [y.scale * t.metrics[y.name] for t in trials]
