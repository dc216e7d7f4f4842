"""What the command line shows: live progress and tables (rich)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import ACCURACY, METRICS, shown_metrics
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run, rank
from nas_meta.journal.status import JOB, JOBS, PHASES, Status
from nas_meta.outputs.report.formatting import clock, short, trial_line

if TYPE_CHECKING:
    from nas_meta.outputs.proxy_ranking import Ranking

REFRESHES = 4  # a second, of what is shown while it changes
SHOWN = 20  # trials that run, at most
OLD = 30  # seconds after which a search that said nothing is taken for dead


def console() -> Console:
    """Standard output; where it is no terminal, wide enough that tables do not wrap."""
    # What trials and plugins say is shown as it is: no [tags] of rich's in it.
    plain = {"markup": False, "emoji": False}
    return Console(**plain) if sys.stdout.isatty() else Console(width=160, **plain)


class LiveProgress:
    """Live on a terminal; a line for every finished trial elsewhere. Call it with each :class:`Status`."""

    def __init__(self, console: Console):
        self.console = console
        self._live = Live(console=console, refresh_per_second=REFRESHES) if console.is_terminal else None
        self._told = 0  # trials that ended, so far
        self._drawn = 0.0
        self._phase = ""
        self._data_reported = False

    def __enter__(self) -> LiveProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, status: Status) -> None:
        if status.data_report and not self._data_reported:
            self._data_reported = True
            for sentence in status.data_report:
                self.console.print(f"data       {one_line(sentence)}", highlight=False)
        if self._live:
            if status.over or status.written - self._drawn > 1 / REFRESHES:
                self._drawn = status.written
                self._live.update(panel(status))
            return
        if status.phase != self._phase:
            self._phase = status.phase
            self.console.print(PHASES[status.phase], highlight=False)
        ended, self._told = status.leaderboard.ended[self._told :], len(status.leaderboard.ended)
        for trial in map(status.leaderboard.trials.get, ended):
            if trial.status != "running":
                self.console.print(trial_line(trial, status.leaderboard.metrics), highlight=False)


def panel(status: Status) -> Group:
    """How far a search is: trials, the best so far, and each that runs with its step and loss."""
    if status.phase in JOBS:
        step, of = status.steps.get(JOB, 0), f"/{status.job_steps}" if status.job_steps else ""
        head = Text.assemble((PHASES[status.phase], "bold"), f"  step {step}{of}")
        return Group(head, ProgressBar(total=status.job_steps or None, completed=step, width=60))
    leaderboard = status.leaderboard
    finished, running = leaderboard.finished, list(leaderboard.running.values())
    failed, stopped = leaderboard.counts["failed"], leaderboard.counts["stopped"]
    elapsed = (status.written if status.over else time.time()) - status.started
    left = elapsed / finished * (status.total - finished) if finished else None
    head = Text.assemble(
        (PHASES[status.phase], "bold"),
        f"  {finished}/{status.total} done, {len(running)} running, {failed} failed",
        f", {stopped} stopped early" if stopped else "",
        f"  elapsed {clock(elapsed)}",
        f"  left about {clock(left)}" if left is not None and status.phase == "searching" else "",
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
    """The step of a running trial, and its loss where it has one."""
    loss = f", loss {status.losses[trial.id]:.3f}" if trial.id in status.losses else ""
    return f"step {status.steps.get(trial.id, 0)}/{trial.fidelity}{loss}"


def status_view(status: Status) -> Group:
    """:func:`panel` as another process sees it: with workers, throughput, failures, and how old the news are."""
    done = [t for t in status.trials if t.finished and t.finished >= status.started]
    minutes = max(status.written - status.started, 1e-9) / 60
    lines: list[Any] = [
        panel(status),
        Text(f"workers      {status.workers}, {len(done) / minutes:.1f} trials a minute, on {one_line(status.where)}"),
    ]
    for reason, count in status.failures.items():
        lines.append(Text(f"failed       {count} because {one_line(reason)}", style="red"))
    failed = [t.id for t in status.trials if t.error and not t.metrics]
    if failed:
        lines.append(Text(f"why          nas-meta logs {status.run_dir} {failed[-1]}", style="dim"))
    lines += [Text(f"watching     {one_line(trouble)}", style="yellow") for trouble in status.troubles]
    age = time.time() - status.written
    if not status.over and age > OLD:
        lines.append(Text(f"no sign of the search for {clock(age)}: nas-meta resume {status.run_dir}", style="yellow"))
    return Group(*lines)


def watch_status(read: Callable[[], Status]) -> None:
    """Shows a search that another process runs until it ends."""
    with Live(console=console(), refresh_per_second=2) as live:
        while True:
            started = time.time()
            status = read()
            live.update(status_view(status))
            if status.over:
                return
            time.sleep(max(1, 5 * (time.time() - started)))  # reading a hundred thousand trials takes seconds


def result_table(run: Run) -> Table:
    """Build the table that a search ends with.

    Args:
        run: The run.

    Returns:
        The meta-tested trials, the Pareto front, and the models that they are compared with.
    """
    table = Table(title="The best and the Pareto front", title_justify="left")
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
    steps = run.steps
    saved = f" of {steps.planned:,}: {steps.saved:.0%} saved by stopping early" if steps.saved else ""
    table.caption = (
        f"* on the Pareto front; ± is the 95% interval over episodes\n{steps.taken:,} meta-training steps{saved}"
    )
    if timing:
        inputs = timing.get("inputs") or f"{timing['batch']} × {timing['tokens']} tokens"
        table.caption += (
            f"\nlatency: median for {one_line(inputs)} on {one_line(timing['device'])}, "
            f"alone on the machine;\nduring the search stood in for it: {one_line(timing['during_search'])}"
        )
    table.caption_justify = "left"
    return table


def ranking_table(ranking: Ranking) -> Table:
    """Architectures with their scores; of a run, what each score's ranking is worth."""
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
        found = [f"{a.tau:+.2f} ({a.low:+.2f} to {a.high:+.2f})" for a in ranking.agreement.values()]
        table.add_section()
        table.add_row("", "τ", *found, "Kendall's τ with the accuracy, 95% interval over bootstrap samples")
    return table


def trials_table(trials: Sequence[Trial], objectives: Sequence[str] = ()) -> Table:
    """Build a table of trials.

    Args:
        trials: The trials, in the order of the table.
        objectives: Metrics to show besides the overview.

    Returns:
        The table; the last column holds the architecture, or the reason why the trial failed.
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
            f"{(trial.finished or time.time()) - trial.started:.1f}",
            one_line(trial.error) if trial.error else short(trial.architecture),
        )
    return table
