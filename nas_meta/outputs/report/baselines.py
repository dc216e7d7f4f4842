"""Draw what a search is compared with beside its Pareto front: the untouched model, truncations, TF-IDF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL, Metric
from nas_meta.journal.compared_models import compared_models
from nas_meta.journal.records import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEST = "test_"  # prefix of the names of meta-test metrics
MARKERS = "Ds^vPX"
COLOURS = ("#2f4858", "#33658a", "#86630a", "#55798c", "#7a4988")
LONGEST = 40  # characters of a name in the legend


def draw_baselines(axes: Axes, report: Mapping[str, Any], trials: Sequence[Trial], x: Metric, y: Metric) -> bool:
    """Draw the meta-test accuracies of baselines and of tested trials, with their 95% intervals.

    A baseline is a point where its horizontal value is known, and a dashed line otherwise: TF-IDF has no FLOPs. A line
    that would more than double the height of the picture is only named in the legend, with its value.

    Args:
        axes: Axes with the front. Its values are those of meta-validation, so the legend must tell both apart.
        report: What :attr:`nas_meta.journal.run.Run.report` holds.
        trials: The trials of the search.
        x: Metric of the horizontal axis.
        y: Metric of the vertical axis.

    Returns:
        Whether anything was drawn: baselines have been tested, and the vertical axis is the accuracy.
    """
    rows = compared_models(report)
    if y.name != ACCURACY or not rows:
        return False
    tested = report.get("trials", {})
    shown = [(t.metrics[x.name], tested[str(t.id)]) for t in trials if str(t.id) in tested and x.name in t.metrics]
    if shown:
        heights = [y.scale * row[TEST + ACCURACY] for _, row in shown]
        places = [x.scale * place for place, _ in shown]
        style: dict[str, Any] = {"mfc": "none", "color": "#d1495b", "ms": 7, "lw": 0.7}
        axes.errorbar(places, heights, [_interval(row, y) for _, row in shown], fmt="o", label="tested trials", **style)
    looks = dict(zip(rows, zip(cycle(MARKERS), cycle(COLOURS), strict=False), strict=False))
    for name in sorted(rows, key=lambda name: x.name not in rows[name]):  # points first: they decide what is near
        row, (marker, colour) = rows[name], looks[name]
        height, label = y.scale * row[TEST + ACCURACY], _label(name)
        low, high = axes.get_ylim()
        if x.name in row:
            place = x.scale * row[x.name]
            axes.errorbar([place], [height], [_interval(row, y)], fmt=marker, color=colour, ms=6, lw=0.7, label=label)
        elif low - (high - low) <= height <= high + (high - low):
            axes.axhline(height, color=colour, lw=1, ls="--", label=label)
        else:
            arrow = r"$\downarrow$" if height < low else r"$\uparrow$"
            value = y.format(row, TEST)
            axes.plot([], [], ls="none", marker=arrow, ms=7, color=colour, label=f"{label}: {value}")
    return True


def _interval(row: Mapping[str, Any], y: Metric) -> float:
    return y.scale * row.get(TEST + ACCURACY + INTERVAL, 0.0)


def _label(name: str) -> str:
    """Return a name as the legend shows it literally; a leading underscore would hide it."""
    text = one_line(name).replace("$", r"\$").lstrip("_")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
