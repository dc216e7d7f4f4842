"""Live progress of a search: redrawn in a terminal, line by line in a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas_meta.errors import one_line
from nas_meta.journal.records import Trial
from nas_meta.journal.status import COUNTED, JOB, JOBS, PHASES, Status
from nas_meta.outputs.report.formatting import clock, trial_line
from nas_meta.outputs.report.terminal import console

REFRESHES = 4  # redraws of the live progress per second
SHOWN = 20  # largest number of running trials listed
OTHER_LINES = 8  # lines of the live progress beside the running trials
LABEL = 13  # columns of the label of a line
OLD = 30  # seconds without an update after which the search may have died
SILENCE = 10.0  # seconds after which a file gets a line although nothing has ended
MOST_SILENCE = 60.0  # the longest silence: it doubles while nothing ends


class LiveProgress:
    """Progress of a search: live in a terminal, otherwise a line per phase and finished trial, and in long silences.

    Use it as a context manager and call it with each :class:`Status`.

    Args:
        console: Where to print.
        silence: Seconds after which a file gets a line although nothing has ended; doubled after each, up to a minute.
    """

    def __init__(self, console: Console, silence: float = SILENCE):
        self.console = console
        redraws = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, refresh_per_second=REFRESHES) if redraws else None
        self._silence = silence
        self._printed = 0  # ended trials that have been printed
        self._drawn_at = 0.0
        self._phase = self._device = ""
        self._data_reported = False
        self._summary: Summary | None = None
        self._news, self._closed = Event(), False
        self._reminder = Thread(target=self._remind, daemon=True)

    def __enter__(self) -> LiveProgress:
        if self._live:
            self._live.start()
        else:
            self._reminder.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()
        else:
            self._closed = True
            self._news.set()
            self._reminder.join()

    def __call__(self, status: Status) -> None:
        if status.device != self._device:
            self._device = status.device
            self._print(f"trials run on {one_line(status.device)}")
        if status.data_report and not self._data_reported:
            self._data_reported = True
            for sentence in status.data_report:
                self._print(labelled("data", sentence) if self._live else f"data         {one_line(sentence)}")
        due = status.over or status.phase != self._phase or status.written - self._drawn_at > 1 / REFRESHES
        if self._live:
            if due:
                self._phase, self._drawn_at = status.phase, status.written
                room = max(1, self.console.height - OTHER_LINES)
                self._live.update(panel(status, min(SHOWN, room)))
            return
        if due:
            self._drawn_at = status.written
            self._summary = summary(status)
        if status.phase != self._phase:
            self._phase = status.phase
            self._print(PHASES[status.phase])
        ended = status.leaderboard.ended[self._printed :]
        self._printed += len(ended)
        for trial in (status.leaderboard.trials[number] for number in ended):
            if trial.status != "running":
                self._print(trial_line(trial, status.leaderboard.metrics))

    def _print(self, line: str | Table) -> None:
        self.console.print(line, highlight=False)
        self._news.set()

    def _remind(self) -> None:
        """Print how far the search is whenever nothing was printed for a while."""
        silence = self._silence
        while not self._closed:
            if self._news.wait(silence):
                self._news.clear()
                silence = self._silence
            elif self._summary is not None:
                self.console.print(self._summary.line(), highlight=False)
                silence = min(2 * silence, max(MOST_SILENCE, self._silence))


def progress_display() -> Any:
    """Return the progress display that suits this process: one for notebooks, or :class:`LiveProgress`."""
    from nas_meta.outputs.report.notebook import NotebookProgress, in_notebook

    return NotebookProgress() if in_notebook() else LiveProgress(console())


@dataclass(frozen=True)
class Summary:
    """The counts of a search at one moment, with a clock that runs on until the next one.

    It is drawn by another thread than the one that searches, so it holds no trials.

    Attributes:
        phase: What the search does now.
        counts: How far that is.
        started: When the search began, in seconds since the epoch.
        ended: When it ended; None while it runs.
        share: Share of the trials of this process that have ended, to estimate the time left; 0 gives no estimate.
        running: How far the running trials are.
    """

    phase: str
    counts: str
    started: float
    ended: float | None = None
    share: float = 0.0
    running: str = ""

    def line(self) -> str:
        """Return the summary as one line of text."""
        return self._text().plain + (f"  {self.running}" if self.running else "")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the summary with the time of this moment."""
        yield self._text()

    def _text(self) -> Text:
        elapsed = max(0.0, (self.ended or time.time()) - self.started)
        left = elapsed / self.share - elapsed if self.share else None
        return Text.assemble(
            (self.phase, "bold"),
            f"  {self.counts}" if self.counts else "",
            f"  elapsed {clock(elapsed)}",
            f"  about {clock(left)} left" if left is not None else "",
        )


def summary(status: Status) -> Summary:
    """Return the counts of a search.

    Args:
        status: Status of the search.
    """
    board, ended = status.leaderboard, status.written if status.over else None
    phase = PHASES[status.phase]
    if status.phase in JOBS:
        of = f"/{status.job_steps}" if status.job_steps else ""
        return Summary(phase, f"step {status.steps.get(JOB, 0)}{of}", status.started, ended)
    if status.phase == "preparing" and not board.trials:
        return Summary(phase, "", status.started, ended)
    if status.phase in COUNTED and status.job_steps:
        return Summary(phase, f"{status.steps.get(JOB, 0)}/{status.job_steps} models", status.started, ended)
    failed, stopped = board.counts["failed"], board.counts["stopped"]
    counts = f"{board.finished}/{status.total} done, {len(board.running)} running, {failed} failed"
    counts += f", {stopped} stopped early" if stopped else ""
    now, left = board.finished - status.earlier, status.total - board.finished  # trials of this process
    share = now / (now + left) if status.phase == "searching" and now > 0 and left >= 0 else 0.0
    first = next(iter(board.running.values()), None)
    running = f"trial {first.id}: {progress(status, first)}" if first else ""
    return Summary(phase, counts, status.started, ended, share, running)


def panel(status: Status, most: int = SHOWN) -> Group:
    """Show the progress of a search: counts of trials, the best trial so far, and the running trials.

    Args:
        status: Status of the search.
        most: The largest number of running trials to list.
    """
    done, total = bar_of(status)
    lines: list[Any] = [summary(status), _bar(done, total or None)]
    if status.phase in JOBS:
        return Group(*lines)
    leaderboard = status.leaderboard
    running = list(leaderboard.running.values())
    if leaderboard.leader:
        lines.append(labelled("best so far", trial_line(leaderboard.leader, leaderboard.metrics), label_style="green"))
    lines += [Text(f"running      trial {t.id}: {progress(status, t)}", style="dim") for t in running[:most]]
    if status.phase == "searching" and not running:
        lines.append(Text("waiting for a worker to start", style="yellow"))
    if len(running) > most:
        lines.append(Text(f"             and {len(running) - most} more", style="dim"))
    return Group(*lines)


def bar_of(status: Status) -> tuple[int, int]:
    """Return what the progress bar shows: what is done in this phase, and how much there is to do; 0 if not known.

    Args:
        status: Status of the search.
    """
    if status.phase in JOBS or (status.phase in COUNTED and status.job_steps):
        return status.steps.get(JOB, 0), status.job_steps
    preparing = status.phase == "preparing" and not status.leaderboard.trials
    return status.leaderboard.finished, 0 if preparing else status.total


def labelled(label: str, sentence: str, style: str = "", label_style: str | None = None) -> Table:
    """Return a line of the progress with a label; a sentence that needs more lines stays right of the label.

    Args:
        label: One word.
        sentence: Text that may come from plugins or data.
        style: Style of the line.
        label_style: Style of the label; by default that of the line.
    """
    line = Table.grid()
    line.add_column(width=LABEL, no_wrap=True)
    line.add_column(overflow="fold")
    head = Text(label, style=style if label_style is None else label_style)
    line.add_row(head, Text(one_line(sentence), style=style))
    return line


def _bar(done: float, total: float | None) -> Table:
    """Return a progress bar on a line of its own: rich's bar does not end its line."""
    line = Table.grid()
    line.add_row(ProgressBar(total=total, completed=done, width=60))
    return line


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
        labelled("workers", f"{status.workers}, {rate:.1f} trials per minute, on {status.where}"),
    ]
    if status.device:
        lines.append(labelled("device", status.device))
    if status.error:
        lines.append(labelled("error", status.error, "red"))
    for reason, count in status.failures.items():
        lines.append(labelled("failed", f"{count} × {reason}", "red"))
    failed = [t.id for t in status.trials if t.error and not t.metrics]
    if failed:
        lines.append(labelled("why", f"nas-meta logs {status.run_dir} {failed[-1]}", "dim"))
    lines += [labelled("watching", trouble, "yellow") for trouble in status.troubles]
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
