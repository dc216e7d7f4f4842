"""Tables in the terminal, drawn with rich."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from nas_meta.errors import one_line, printable
from nas_meta.evaluation.metrics import ACCURACY, LATENCY, METRICS, metric_of, of_form, shown_metrics
from nas_meta.evaluation.protocols import FULL_WAY, NAMED
from nas_meta.journal.compared_models import compared_models, shown_name
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run, rank
from nas_meta.models.onnx.forms import TORCH
from nas_meta.outputs.report.formatting import compact, compact_heading, short
from nas_meta.outputs.report.listing import Listing

if TYPE_CHECKING:
    from nas_meta.outputs.proxy_ranking import Ranking

WIDTH = 160  # columns where the output is not a terminal and COLUMNS is not set


class SafeConsole(Console):
    """A console that escapes what it prints, whatever table or text that is part of."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does; only its own control codes reach the terminal as they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console() -> Console:
    """Return a console for standard output; if that is not a terminal, it is COLUMNS wide, by default 160."""
    # Messages of trials and plugins are printed verbatim: rich must not interpret their [brackets] as markup.
    plain = {"markup": False, "emoji": False}
    columns = os.environ.get("COLUMNS", "")
    given = columns.isdecimal() and int(columns) > 0
    return SafeConsole(**plain) if given or sys.stdout.isatty() else SafeConsole(width=WIDTH, **plain)


def result_table(run: Run, wide: bool = False) -> Listing:
    """Build the table of results that is printed at the end of a search.

    Args:
        run: The run.
        wide: Whether architectures are shown with the names of their choices.

    Returns:
        The table: meta-tested trials and the Pareto front (at most 12 trials), then the reference models and those that
        were trained like the best trial. The text below it ends with the verdict.
    """
    report = run.report
    timing = report.get("latency") or {}
    latency = metric_of(of_form(LATENCY, timing.get("form", TORCH)))
    front = {t.id for t in run.pareto}
    shown = [t for t in rank(run.trials, run.objectives) if t.id in front or str(t.id) in report.get("trials", {})]
    accuracy, *others = shown_metrics([o.metric for o in run.objectives], {name for t in shown for name in t.metrics})
    others = [m for m in others if m.known != "end"]
    show = _architectures(shown, wide)
    table = Listing(show.heading, title="Best trials and the Pareto front")
    table.add_column("trial")
    for title in ("meta-validation", "meta-test", *(m.title for m in others), latency.title):
        table.add_column(title, justify="right")
    for trial in shown[:12]:
        table.add_row(
            f"{trial.id}{' *' if trial.id in front else ''}",
            accuracy.format(trial.metrics),
            accuracy.format(run.test_of(trial), prefix="test_"),
            *(metric.format(trial.metrics) for metric in others),
            _latency(timing.get("trials", {}).get(str(trial.id), {})),
            detail=show.format(trial.architecture),
        )
    for name, test in compared_models(report).items():
        cells = [metric.format(test) for metric in others]
        table.add_row("", "", accuracy.format(test, prefix="test_"), *cells, "", detail=one_line(name), style="dim")
    unmeasured = {shown_name(key, report): reason for key, reason in report.get("unmeasured", {}).items()}
    for name in unmeasured:
        table.add_row("", "", "not measured", *[""] * len(others), "", detail=one_line(name), style="dim")
    steps = run.steps
    saved = f" of {steps.planned:,}: {steps.saved:.0%} saved by stopping early" if steps.saved else ""
    table.caption = (
        f"* on the Pareto front; ± is the 95% interval over {_unit(run)}\n{steps.taken:,} meta-training steps{saved}"
    )
    for sentence in run.final_sentences.values():
        table.caption += escape(f"\n{sentence}")
    for name, reason in unmeasured.items():
        table.caption += escape(f"\n{one_line(name)} was not measured: {one_line(reason)}")
    if timing:
        inputs = timing.get("inputs") or f"{timing['batch']} × {timing['tokens']} tokens"
        table.caption += (
            f"\n{latency.title}: median for {one_line(inputs)} on {one_line(timing['device'])}, measured while no "
            f"trial ran; during the search it was estimated by {one_line(timing['during_search'])}"
        )
        if busy := [m["latency_load"] for m in timing.get("trials", {}).values() if m.get("latency_busy")]:
            table.caption += (
                f"\n! other processes used up to {max(busy):.1f} CPUs during the measurement: these latencies are too "
                "high and cannot be compared"
            )
    if verdict := run.verdict:
        table.caption += f"\n\n{one_line(verdict)}"
    return table


def _latency(measured: Mapping[str, float]) -> str:
    """Format a measured latency, marked if other processes disturbed the measurement."""
    return METRICS[LATENCY].format(measured) + (" !" if measured.get("latency_busy") else "")


def ranking_table(ranking: Ranking) -> Listing:
    """Build the table of a proxy ranking.

    Args:
        ranking: The ranking, with at least one architecture.

    Returns:
        The table; for a run, its last row holds the agreement of each proxy with the trained accuracy.
    """
    table, first = Listing("architecture"), ranking.rows[0]
    for name in ([] if first.trial is None else ["trial", METRICS[ACCURACY].title]) + list(first.scores):
        table.add_column(name, justify="right")
    for row in ranking.rows:
        trained = [] if row.trial is None else [str(row.trial), METRICS[ACCURACY].format({ACCURACY: row.accuracy})]
        table.add_row(
            *trained,
            *(f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}" for value in row.scores.values()),
            detail=short(row.architecture.values),
        )
    if ranking.agreement:
        taus = [f"{a.tau:+.2f} ({a.low:+.2f} to {a.high:+.2f})" for a in ranking.agreement.values()]
        table.add_row("", "τ", *taus, detail="Kendall's τ with the accuracy (95% bootstrap interval)")
    return table


class _Shown(NamedTuple):
    """How a table shows architectures."""

    heading: str
    format: Callable[[Mapping[str, Any]], str]


def _architectures(trials: Sequence[Trial], wide: bool) -> _Shown:
    """Return how a table shows the architectures of trials: compact, or with the names of their choices."""
    if wide:
        return _Shown("architecture", short)
    return _Shown(compact_heading(t.architecture for t in trials if t.architecture), compact)


def trials_table(trials: Sequence[Trial], objectives: Sequence[str] = (), wide: bool = False) -> Listing:
    """Build a table of trials.

    Args:
        trials: The trials, in the order of the table.
        objectives: Metrics to show in addition to those that are always shown.
        wide: Whether architectures are shown with the names of their choices.

    Returns:
        The table; the details are the architecture, or the reason of a failure.
    """
    show, shown = _architectures(trials, wide), shown_metrics(list(objectives), {n for t in trials for n in t.metrics})
    table = Listing(f"{show.heading} or error" if any(t.error for t in trials) else show.heading)
    table.add_column("trial")
    table.add_column("status")
    for metric in shown:
        table.add_column(metric.title, justify="right")
    table.add_column("seconds", justify="right")
    for trial in trials:
        table.add_row(
            str(trial.id),
            f"stopped at {trial.fidelity}" if trial.status == "stopped" else trial.status,
            *(metric.format(trial.metrics) for metric in shown),
            f"{max(0.0, time.time() - trial.started) if trial.seconds is None else trial.seconds:.1f}",
            detail=one_line(trial.error) if trial.error else show.format(trial.architecture),
        )
    return table


def _unit(run: Run) -> str:
    """Return what the accuracies of a run are means over."""
    unit = "draws of the support set, with all classes of the split at once" if run.protocol == FULL_WAY else "episodes"
    return f"{unit}, {NAMED}" if run.class_names else unit
