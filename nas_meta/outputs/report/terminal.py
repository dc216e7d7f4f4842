"""Live progress and tables in the terminal, drawn with rich."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from nas_meta.errors import one_line, printable
from nas_meta.evaluation.metrics import ACCURACY, METRICS, shown_metrics
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run, rank
from nas_meta.journal.status import JOB, JOBS, PHASES, Status
from nas_meta.outputs.report.formatting import clock, short, trial_line

if TYPE_CHECKING:
    from nas_meta.outputs.proxy_ranking import Ranking

REFRESHES = 4  # redraws of the live progress per second
SHOWN = 20  # largest number of running trials listed
OLD = 30  # seconds without an update after which the search may have died


class SafeConsole(Console):
    """A console that escapes what it prints, whatever table or text that is part of."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does; only its own control codes reach the terminal as they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console() -> Console:
    """Return a console for standard output, 160 columns wide if that is not a terminal."""
    # Messages of trials and plugins are printed verbatim: rich must not interpret their [brackets] as markup.
    plain = {"markup": False, "emoji": False}
    return SafeConsole(**plain) if sys.stdout.isatty() else SafeConsole(width=160, **plain)


class LiveProgress:
    """Progress of a search: live on a terminal, otherwise one line per phase and finished trial.

    Use it as a context manager and call it with each :class:`Status`.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console):
        self.console = console
        self._live = Live(console=console, refresh_per_second=REFRESHES) if console.is_terminal else None
        self._printed = 0  # ended trials that have been printed
        self._drawn_at = 0.0
        self._phase = self._device = ""
        self._data_reported = False

    def __enter__(self) -> LiveProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, status: Status) -> None:
        if status.device != self._device:
            self._device = status.device
            self.console.print(f"trials run on {one_line(status.device)}", highlight=False)
        if status.data_report and not self._data_reported:
            self._data_reported = True
            for sentence in status.data_report:
                self.console.print(f"data       {one_line(sentence)}", highlight=False)
        if self._live:
            if status.over or status.written - self._drawn_at > 1 / REFRESHES:
                self._drawn_at = status.written
                self._live.update(panel(status))
            return
        if status.phase != self._phase:
            self._phase = status.phase
            self.console.print(PHASES[status.phase], highlight=False)
        ended = status.leaderboard.ended[self._printed :]
        self._printed += len(ended)
        for trial in map(status.leaderboard.trials.get, ended):
            if trial.status != "running":
                self.console.print(trial_line(trial, status.leaderboard.metrics), highlight=False)


def panel(status: Status) -> Group:
    """Show the progress of a search: counts of trials, the best trial so far, and the running trials.

    Args:
        status: Status of the search.
    """
    if status.phase in JOBS:
        step, of = status.steps.get(JOB, 0), f"/{status.job_steps}" if status.job_steps else ""
        head = Text.assemble((PHASES[status.phase], "bold"), f"  step {step}{of}")
        return Group(head, ProgressBar(total=status.job_steps or None, completed=step, width=60))
    leaderboard = status.leaderboard
    finished, running = leaderboard.finished, list(leaderboard.running.values())
    failed, stopped = leaderboard.counts["failed"], leaderboard.counts["stopped"]
    elapsed = max(0.0, (status.written if status.over else time.time()) - status.started)
    left = elapsed / finished * (status.total - finished) if finished else None
    head = Text.assemble(
        (PHASES[status.phase], "bold"),
        f"  {finished}/{status.total} done, {len(running)} running, {failed} failed",
        f", {stopped} stopped early" if stopped else "",
        f"  elapsed {clock(elapsed)}",
        f"  about {clock(left)} left" if left is not None and status.phase == "searching" else "",
    )
    lines: list[Any] = [head, ProgressBar(total=status.total, completed=finished, width=60)]
    if leaderboard.leader:
        lines.append(Text.assemble(("best so far  ", "green"), trial_line(leaderboard.leader, leaderboard.metrics)))
    lines += [Text(f"running      trial {t.id}: {progress(status, t)}", style="dim") for t in running[:SHOWN]]
    if status.phase == "searching" and not running:
        lines.append(Text("waiting for a worker to start", style="yellow"))
    if len(running) > SHOWN:
        lines.append(Text(f"             and {len(running) - SHOWN} more", style="dim"))
    return Group(*lines)


def progress(status: Status, trial: Trial) -> str:
    """Format the step of a running trial, and its loss if known.

    Args:
        status: Status of the search.
        trial: A running trial.
    """
    loss = f", loss {status.losses[trial.id]:.3f}" if trial.id in status.losses else ""
    return f"step {status.steps.get(trial.id, 0)}/{trial.fidelity}{loss}"


def status_view(status: Status) -> Group:
    """Show the progress of a search that runs in another process.

    In addition to :func:`panel`, it shows workers, throughput, reasons of failures, problems of monitors, and a warning
    if the last update is old.

    Args:
        status: Status of the search, as read from its directory.
    """
    done = [t for t in status.trials if t.finished and t.finished >= status.started]
    rate = 60 * len(done) / max(status.written - status.started, 1e-9)
    lines: list[Any] = [
        panel(status),
        Text(f"workers      {status.workers}, {rate:.1f} trials per minute, on {one_line(status.where)}"),
    ]
    if status.device:
        lines.append(Text(f"device       {one_line(status.device)}"))
    for reason, count in status.failures.items():
        lines.append(Text(f"failed       {count} × {one_line(reason)}", style="red"))
    failed = [t.id for t in status.trials if t.error and not t.metrics]
    if failed:
        lines.append(Text(f"why          nas-meta logs {status.run_dir} {failed[-1]}", style="dim"))
    lines += [Text(f"watching     {one_line(trouble)}", style="yellow") for trouble in status.troubles]
    age = time.time() - status.written
    if not status.over and age > OLD:
        text = f"no update from the search for {clock(age)}; if it has died: nas-meta resume {status.run_dir}"
        lines.append(Text(text, style="yellow"))
    return Group(*lines)


def watch_status(read: Callable[[], Status]) -> None:
    """Show the progress of a search in another process until it ends.

    Args:
        read: Reads the current status of the search.
    """
    with Live(console=console(), refresh_per_second=2) as live:
        while True:
            started = time.time()
            status = read()
            live.update(status_view(status))
            if status.over:
                return
            # Reading 100,000 trials takes seconds: spend at most a sixth of the time on it.
            time.sleep(max(1, 5 * (time.time() - started)))


def result_table(run: Run) -> Table:
    """Build the table of results that is printed at the end of a search.

    Args:
        run: The run.

    Returns:
        The table: meta-tested trials and the Pareto front (at most 12 trials), then the reference models.
    """
    table = Table(title="Best trials and the Pareto front", title_justify="left")
    accuracy, *others = shown_metrics([o.metric for o in run.objectives])
    others = [m for m in others if m.known != "end"]
    table.add_column("trial")
    for title in ("meta-validation", "meta-test", *(m.title for m in others), METRICS["latency"].title):
        table.add_column(title, justify="right")
    table.add_column("architecture")
    report = run.report
    timing = report.get("latency") or {}
    front = {t.id for t in run.pareto}
    shown = [t for t in rank(run.trials, run.objectives) if t.id in front or str(t.id) in report.get("trials", {})]
    for trial in shown[:12]:
        table.add_row(
            f"{trial.id}{' *' if trial.id in front else ''}",
            accuracy.format(trial.metrics),
            accuracy.format(run.test_of(trial), prefix="test_"),
            *(metric.format(trial.metrics) for metric in others),
            METRICS["latency"].format(timing.get("trials", {}).get(str(trial.id), {})),
            short(trial.architecture),
        )
    for name, test in report.get("references", {}).items():
        cells = [metric.format(test) for metric in others]
        table.add_row(one_line(name), "", accuracy.format(test, prefix="test_"), *cells, "", "", style="dim")
    unmeasured = report.get("unmeasured", {})
    for name in unmeasured:
        table.add_row(one_line(name), "", "not measured", *[""] * len(others), "", "", style="dim")
    steps = run.steps
    saved = f" of {steps.planned:,}: {steps.saved:.0%} saved by stopping early" if steps.saved else ""
    table.caption = (
        f"* on the Pareto front; ± is the 95% interval over episodes\n{steps.taken:,} meta-training steps{saved}"
    )
    for name, reason in unmeasured.items():
        table.caption += escape(f"\n{one_line(name)} was not measured: {one_line(reason)}")
    if timing:
        inputs = timing.get("inputs") or f"{timing['batch']} × {timing['tokens']} tokens"
        table.caption += (
            f"\nlatency: median for {one_line(inputs)} on {one_line(timing['device'])}, measured without other load;"
            f"\nduring the search it was estimated by {one_line(timing['during_search'])}"
        )
    table.caption_justify = "left"
    return table


def ranking_table(ranking: Ranking) -> Table:
    """Build the table of a proxy ranking.

    Args:
        ranking: The ranking, with at least one architecture.

    Returns:
        The table; for a run, its last row holds the agreement of each proxy with the trained accuracy.
    """
    table, first = Table(), ranking.rows[0]
    for name in ([] if first.trial is None else ["trial", METRICS[ACCURACY].title]) + list(first.scores):
        table.add_column(name, justify="right")
    table.add_column("architecture")
    for row in ranking.rows:
        trained = [] if row.trial is None else [str(row.trial), METRICS[ACCURACY].format({ACCURACY: row.accuracy})]
        table.add_row(
            *trained,
            *(f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}" for value in row.scores.values()),
            short(row.architecture.values),
        )
    if ranking.agreement:
        taus = [f"{a.tau:+.2f} ({a.low:+.2f} to {a.high:+.2f})" for a in ranking.agreement.values()]
        table.add_section()
        table.add_row("", "τ", *taus, "Kendall's τ with the accuracy (95% bootstrap interval)")
    return table


def trials_table(trials: Sequence[Trial], objectives: Sequence[str] = ()) -> Table:
    """Build a table of trials.

    Args:
        trials: The trials, in the order of the table.
        objectives: Metrics to show in addition to those that are always shown.

    Returns:
        The table; its last column holds the architecture, or the reason of a failure.
    """
    table, shown = Table(), shown_metrics(list(objectives))
    table.add_column("trial")
    table.add_column("status")
    for metric in shown:
        table.add_column(metric.title, justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("architecture or error")
    for trial in trials:
        table.add_row(
            str(trial.id),
            f"stopped at {trial.fidelity}" if trial.status == "stopped" else trial.status,
            *(metric.format(trial.metrics) for metric in shown),
            f"{max(0.0, (trial.finished or time.time()) - trial.started):.1f}",
            one_line(trial.error) if trial.error else short(trial.architecture),
        )
    return table
