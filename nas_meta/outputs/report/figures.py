"""Pictures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas_meta.core.objectives import Objective
from nas_meta.journal.records import Trial
from nas_meta.journal.run import pareto, rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def front_figure(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Figure:
    """Accuracy against FLOPs of every completed trial, with the Pareto front of the two."""
    from matplotlib.figure import Figure

    done = rank(trials, objectives)
    front = sorted(
        pareto(trials, [Objective("accuracy"), Objective("flops", "minimize")]),
        key=lambda t: t.metrics["flops"],
    )
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(
        [t.metrics["flops"] / 1e6 for t in done],
        [100 * t.metrics["accuracy"] for t in done],
        [100 * t.metrics["accuracy_ci95"] for t in done],
        fmt="o", ms=4, lw=0.7, color="#9aa5b1", label="trials (95% interval)",
    )  # fmt: skip
    axes.step(
        [t.metrics["flops"] / 1e6 for t in front],
        [100 * t.metrics["accuracy"] for t in front],
        where="post", marker="o", color="#d1495b", label="Pareto front",
    )  # fmt: skip
    axes.set_xlabel("MFLOPs a text")
    axes.set_ylabel("meta-validation accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
