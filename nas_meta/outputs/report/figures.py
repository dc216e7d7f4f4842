"""Figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.core.objectives import Objective, front_ranks, hypervolume
from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL, METRICS, Metric, metric_of
from nas_meta.journal.records import Trial
from nas_meta.journal.run import pareto, rank
from nas_meta.outputs.report.baselines import draw_baselines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMED = 12  # trials of the front whose ids are in the figure, about


def front_figure(
    trials: Sequence[Trial], objectives: Sequence[Objective], chosen: Trial | None = None, most: int | None = None,
    report: Mapping[str, Any] | None = None,
) -> Figure:  # fmt: skip
    """Draw every completed trial and the Pareto front, the first objective against the second.

    Args:
        trials: Trials of any status.
        objectives: Objectives of the search, the first one first. If there is only one, the other axis shows FLOPs, or
            the accuracy if that objective is FLOPs.
        chosen: The trial to mark as the choice of the search; None marks none.
        most: The largest number of trials beside the front, evenly spread over their ranks; by default all.
        report: Results of the meta-test, whose baselines are drawn, too, if the vertical axis is the accuracy.

    Returns:
        The figure, with 95% intervals over episodes where they are known, and the IDs of trials on the front.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    draw_front(figure.subplots(), trials, objectives, chosen, most, report)
    return figure


def draw_front(
    axes: Axes, trials: Sequence[Trial], objectives: Sequence[Objective], chosen: Trial | None = None,
    most: int | None = None, report: Mapping[str, Any] | None = None,
) -> Axes:  # fmt: skip
    """Draw what :func:`front_figure` shows into axes.

    Args:
        axes: The axes.
        trials: Trials of any status.
        objectives: Objectives of the search, the first one first.
        chosen: The trial to mark.
        most: The largest number of trials beside the front.
        report: Results of the meta-test.

    Returns:
        The axes.
    """
    vertical, horizontal = front_axes(objectives)
    y, x = metric_of(vertical.metric), metric_of(horizontal.metric)
    done = [t for t in rank(trials, [vertical]) if x.name in t.metrics]
    front = sorted(pareto(done, [vertical, horizontal]), key=lambda t: t.metrics[x.name])
    if most is not None and len(done) > most:
        done = [done[i] for i in np.linspace(0, len(done) - 1, most).astype(int)]
    intervals = [y.scale * t.metrics.get(y.name + INTERVAL, 0.0) for t in done]
    label = "trials (95% interval)" if any(intervals) else "trials"
    axes.errorbar(*_points(done, x, y), intervals, fmt="o", ms=4, lw=0.7, color="#9aa5b1", label=label)
    axes.step(*_points(front, x, y), where="post", marker="o", color="#d1495b", label="Pareto front")
    for trial in front[:: max(1, len(front) // MOST_NAMED)]:
        place = (x.scale * trial.metrics[x.name], y.scale * trial.metrics[y.name])
        axes.annotate(f"{trial.id}", place, xytext=(4, -9), textcoords="offset points", fontsize=7, color="#d1495b")
    if chosen is not None and x.name in chosen.metrics:
        axes.plot(*_points([chosen], x, y), "*", ms=15, color="#2a7f62", label="chosen", ls="none")
    compared = draw_baselines(axes, report or {}, done, x, y)
    axes.set_xlabel(x.axis)
    axes.set_ylabel(f"meta-validation {y.axis}" if y.name == ACCURACY and not compared else y.axis)
    axes.grid(alpha=0.3)
    title = "trials and front: meta-validation; others: meta-test" if compared else None
    place: dict[str, Any] = {"loc": "best"}
    if axes.get_figure().get_layout_engine() is not None:  # which makes room for a legend below the axes
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14), "ncols": 2 if compared else 3}
    axes.legend(title=title, fontsize="small", title_fontsize="small", **place)
    return axes


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


def curves_figure(curves: Sequence[Mapping[str, Any]], chosen: int | None = None) -> Figure:
    """Draw the accuracy of trials over their meta-training steps.

    Args:
        curves: Rows with ``trial``, ``status``, ``steps`` and ``accuracy`` (shares).
        chosen: ID of the trial to mark; None marks none.

    Returns:
        The figure; a cross ends the curve of a trial that was stopped early.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for row in sorted(curves, key=lambda row: row["trial"] == chosen):
        mine, ended = row["trial"] == chosen, row["status"] == "completed"
        shown = [100 * share for share in row["accuracy"]]
        style = {"color": "#2a7f62", "lw": 2.2, "label": "chosen"} if mine else {"color": "#9aa5b1", "lw": 0.9}
        axes.plot(row["steps"], shown, marker="o", ms=3, **style)
        if not ended:
            axes.plot(row["steps"][-1:], shown[-1:], marker="x", ms=6, color="#d1495b", ls="none")
    axes.set_xlabel("meta-training step")
    axes.set_ylabel("meta-validation accuracy, %")
    axes.grid(alpha=0.3)
    if any(row["trial"] == chosen for row in curves):
        axes.legend()
    return figure


def importance_figure(choices: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the importances of choices with their intervals.

    Args:
        choices: Rows with ``choice``, ``share``, ``low``, ``high`` and ``stands_out``, the most important first.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.7 + 0.26 * len(choices)), layout="constrained")
    axes = figure.subplots()
    shares = [100 * row["share"] for row in choices]
    intervals = [
        [100 * (row["share"] - row["low"]) for row in choices],
        [100 * (row["high"] - row["share"]) for row in choices],
    ]
    colors = ["#d1495b" if row["stands_out"] else "#9aa5b1" for row in choices]
    places = range(len(choices))
    axes.barh(places, shares, xerr=intervals, color=colors, ecolor="#6b7683", error_kw={"lw": 1}, height=0.6)
    axes.set_yticks(places, [_plain(str(row["choice"])) for row in choices])
    axes.invert_yaxis()
    axes.set_xlabel("share of the importance, % (95% interval over trials)")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _plain(text: str) -> str:
    """Return a name as matplotlib shows it literally: dollar signs would begin a formula."""
    return one_line(text if len(text) <= 40 else f"{text[:37]}...").replace("$", r"\$")


def front_axes(objectives: Sequence[Objective]) -> tuple[Objective, Objective]:
    """Return what the vertical and the horizontal axis of a front show.

    Args:
        objectives: Objectives of the search, the first one first.

    Returns:
        The first two objectives, or the only one and FLOPs, or accuracy if that is FLOPs; accuracy, if among them, is
        vertical.
    """
    flops = Objective("flops", METRICS["flops"].direction)
    first, *others = objectives
    other = others[0] if others else flops if first.metric != flops.metric else Objective(ACCURACY)
    return (other, first) if other.metric == ACCURACY else (first, other)


def _points(trials: Sequence[Trial], x: Metric, y: Metric) -> tuple[list[float], list[float]]:
    """Return the coordinates of trials, in the units in which the metrics are shown."""
    return [x.scale * t.metrics[x.name] for t in trials], [y.scale * t.metrics[y.name] for t in trials]
