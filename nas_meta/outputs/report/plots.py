"""Figures of a run for notebooks: each function draws into axes of matplotlib and returns them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.errors import RunError, one_line
from nas_meta.evaluation.metrics import metric_of
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run, rank
from nas_meta.outputs.report.figures import draw_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY, RED = "#9aa5b1", "#d1495b"
MISSING, BELOW = "–", -0.15  # mark and height of a choice that a trial does not have


class Plots:
    """Figures of a run, such as ``run.plot.history()``.

    Every method takes ``ax``, the axes to draw into; without it, new ones are created.

    Args:
        run: The run.
    """

    def __init__(self, run: Run):
        self._run = run

    def history(self, ax: Axes | None = None) -> Axes:
        """Draw the first objective of every trial in the order of their start, and the best so far.

        Args:
            ax: Axes to draw into; by default new ones.

        Returns:
            The axes.

        Raises:
            RunError: No trial is completed.
        """
        run, axes = self._run, _axes(ax)
        objective = run.objectives[0]
        metric = metric_of(objective.metric)
        done = sorted(self._completed(), key=lambda trial: trial.id)
        values = np.array([metric.scale * trial.metrics[metric.name] for trial in done])
        best = objective.sign * np.maximum.accumulate(objective.sign * values)
        numbers = [trial.id for trial in done]
        axes.plot(numbers, values, "o", ms=4, color=GREY, label="trials")
        axes.step(numbers, best, where="post", color=RED, label="best so far")
        return _labelled(axes, "trial", metric.axis)

    def pareto(self, ax: Axes | None = None) -> Axes:
        """Draw every completed trial and the Pareto front, the first objective against the second.

        After the meta-test, baselines and tested trials are drawn, too, with their meta-test accuracies.

        Args:
            ax: Axes to draw into; by default new ones.

        Returns:
            The axes.

        Raises:
            RunError: No trial is completed.
        """
        self._completed()
        return draw_front(_axes(ax), self._run.trials, self._run.objectives, report=self._run.report)

    def parallel_coordinates(self, ax: Axes | None = None) -> Axes:
        """Draw every completed trial as a line over its choices, which ends at its first objective.

        Args:
            ax: Axes to draw into; by default new ones.

        Returns:
            The axes. The values of a choice are spread from bottom to top, above trials that do not have the choice;
            choices with the same value in all trials are left out.

        Raises:
            RunError: No trial is completed.
        """
        from matplotlib import colormaps

        axes, done = _axes(ax), self._completed()
        metric = metric_of(self._run.objectives[0].metric)
        scores = np.array([metric.scale * trial.metrics[metric.name] for trial in done])
        heights = (scores - scores.min()) / (np.ptp(scores) or 1.0)
        every = dict.fromkeys(name for trial in done for name in trial.architecture)
        names = [name for name in every if len({str(t.architecture.get(name, MISSING)) for t in done}) > 1]
        columns = [_positions(done, name) for name in names]
        colours = colormaps["viridis"]
        for i in np.argsort(heights):
            line = [column[i] for column in columns] + [heights[i]]
            axes.plot(range(len(line)), line, color=colours(heights[i]), alpha=0.7, lw=1)
        for x, name in enumerate(names):
            values = _values(done, name)
            for value, y in zip(values, np.linspace(0, 1, len(values)), strict=True):
                axes.annotate(one_line(str(value)), (x, y), fontsize="x-small", ha="center", va="bottom")
            if any(name not in trial.architecture for trial in done):
                axes.annotate(MISSING, (x, BELOW), fontsize="x-small", ha="center", va="bottom")
        axes.set_xticks(range(len(names) + 1), [*map(one_line, names), metric.title], rotation=90, fontsize="small")
        axes.set_yticks([0, 1], [f"{scores.min():.4g}", f"{scores.max():.4g}"])
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
        axes.set_ylabel(metric.axis)
        return axes

    def learning_curves(self, ax: Axes | None = None) -> Axes:
        """Draw the first objective at the rungs of the stopping rule, one line per trial.

        Args:
            ax: Axes to draw into; by default new ones.

        Returns:
            The axes; trials that were stopped at a rung are grey.

        Raises:
            RunError: The run has no stopping rule, or no trial has reached a rung.
        """
        run, axes = self._run, _axes(ax)
        objective = run.objectives[0]
        metric = metric_of(objective.metric)
        curves: dict[int, list[tuple[int, float]]] = {}
        for report, _ in run.rung_reports:
            value = metric.scale * objective.sign * report.values[0]
            curves.setdefault(report.trial, []).append((report.step, value))
        if not curves:
            raise RunError(f"{run.directory} has no learning curves; expected a stopping rule and trials at its rungs")
        by_id = {trial.id: trial for trial in run.trials}
        for number, points in curves.items():
            trial = by_id.get(number)
            completed = trial is not None and trial.status == "completed"
            if trial is not None and completed and metric.name in trial.metrics:
                points.append((trial.fidelity, metric.scale * trial.metrics[metric.name]))
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, marker="o", ms=3, lw=1, color=RED if completed else GREY, alpha=0.7)
        return _labelled(axes, "meta-training steps", metric.axis, legend=False)

    def _completed(self) -> list[Trial]:
        """Return the completed trials, best first."""
        done = rank(self._run.trials, self._run.objectives)
        if not done:
            raise RunError(f"{self._run.directory} has no completed trial yet")
        return done


def _axes(ax: Axes | None) -> Axes:
    """Return the given axes, or new ones of the user's matplotlib, which a notebook shows."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(6.4, 4.2), layout="constrained")[1]


def _labelled(axes: Axes, x: str, y: str, legend: bool = True) -> Axes:
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend()
    return axes


def _values(trials: list[Trial], name: str) -> list[Any]:
    """Return the values that a choice has in some trials, sorted; numbers by size, before texts."""
    found = {trial.architecture[name] for trial in trials if name in trial.architecture}
    numbers = sorted((value for value in found if not isinstance(value, str)), key=lambda value: float(value or 0))
    return [*numbers, *sorted(value for value in found if isinstance(value, str))]


def _positions(trials: list[Trial], name: str) -> list[float]:
    """Return the height of each trial's value of a choice, from 0 to 1, and below for trials without the choice."""
    values = _values(trials, name)
    heights = dict(zip(values, np.linspace(0, 1, len(values)), strict=True))
    return [float(heights[t.architecture[name]]) if name in t.architecture else BELOW for t in trials]
