"""Figures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas_meta.core.objectives import Objective
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL, METRICS, Metric, metric_of
from nas_meta.journal.records import Trial
from nas_meta.journal.run import pareto, rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def front_figure(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Figure:
    """Draw every completed trial and the Pareto front, the first objective against the second.

    Args:
        trials: Trials of any status.
        objectives: Objectives of the search, the first one first. If there is only one, the other axis shows FLOPs, or
            the accuracy if that objective is FLOPs.

    Returns:
        The figure, with 95% intervals over episodes where they are known.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    draw_front(figure.subplots(), trials, objectives)
    return figure


def draw_front(axes: Axes, trials: Sequence[Trial], objectives: Sequence[Objective]) -> Axes:
    """Draw what :func:`front_figure` shows into axes.

    Args:
        axes: The axes.
        trials: Trials of any status.
        objectives: Objectives of the search, the first one first.

    Returns:
        The axes.
    """
    vertical, horizontal = _axes(objectives)
    y, x = metric_of(vertical.metric), metric_of(horizontal.metric)
    done = [t for t in rank(trials, [vertical]) if x.name in t.metrics]
    front = sorted(pareto(done, [vertical, horizontal]), key=lambda t: t.metrics[x.name])
    intervals = [y.scale * t.metrics.get(y.name + INTERVAL, 0.0) for t in done]
    label = "trials (95% interval)" if any(intervals) else "trials"
    axes.errorbar(*_points(done, x, y), intervals, fmt="o", ms=4, lw=0.7, color="#9aa5b1", label=label)
    axes.step(*_points(front, x, y), where="post", marker="o", color="#d1495b", label="Pareto front")
    axes.set_xlabel(x.axis)
    axes.set_ylabel(f"meta-validation {y.axis}" if y.name == ACCURACY else y.axis)
    axes.grid(alpha=0.3)
    axes.legend()
    return axes


def _axes(objectives: Sequence[Objective]) -> tuple[Objective, Objective]:
    """Return the objectives of the vertical and the horizontal axis; accuracy, if among them, is vertical."""
    flops = Objective("flops", METRICS["flops"].direction)
    first, *others = objectives
    other = others[0] if others else flops if first.metric != flops.metric else Objective(ACCURACY)
    return (other, first) if other.metric == ACCURACY else (first, other)


def _points(trials: Sequence[Trial], x: Metric, y: Metric) -> tuple[list[float], list[float]]:
    """Return the coordinates of trials, in the units in which the metrics are shown."""
    return [x.scale * t.metrics[x.name] for t in trials], [y.scale * t.metrics[y.name] for t in trials]
