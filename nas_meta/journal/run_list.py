"""The runs below a folder, each with its state, the number of its trials, its best trial and its last change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_meta.errors import RunError, one_line
from nas_meta.journal.database import FILE
from nas_meta.journal.records import Trial
from nas_meta.journal.run import load_run, rank
from nas_meta.journal.status import FILE as STATUS
from nas_meta.journal.status import OVER, Status, read_early_status, read_status

RUNS = Path("runs")  # where searches without a run directory write theirs
DEEPEST = 4  # folders between the folder that is listed and a run
DONE, INTERRUPTED, RUNNING, DAMAGED, PREPARING = "done", "interrupted", "running", "damaged", "preparing"
START = "'nas-meta search CONFIG' starts one"


@dataclass(frozen=True)
class RunSummary:
    """One run in a list of runs.

    Attributes:
        directory: The run directory.
        state: ``preparing``, ``running``, ``done``, ``interrupted`` or ``failed``; ``damaged`` if the run cannot be
            read.
        changed: When the search last wrote to it, in seconds since the epoch.
        trials: The number of trials that have ended.
        total: Trials of the budget; None if the run does not tell.
        best: The best completed trial by the first objective; None without one.
        metric: The first objective.
        error: Why the search failed or why the run cannot be read; empty otherwise.
    """

    directory: Path
    state: str
    changed: float
    trials: int = 0
    total: int | None = None
    best: Trial | None = None
    metric: str = ""
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain data, as ``--json`` prints it."""
        return {**vars(self), "directory": str(self.directory), "best": self.best and self.best.as_dict()}


def run_directories(folder: Path, deepest: int = DEEPEST, preparing: bool = False) -> Iterator[Path]:
    """Yield the run directories below a folder, or the folder itself if it is a run.

    Links to folders are not followed, and nothing inside a run is looked at.

    Args:
        folder: The folder; it need not exist.
        deepest: The largest number of folders between it and a run.
        preparing: Whether to yield also the directories of searches that have no journal yet.

    Yields:
        Directories with a journal, or with the status of a search that still prepares its data and weights.
    """
    if (folder / FILE).is_file() or (preparing and _preparing(folder) is not None):
        yield folder
        return
    try:
        inner = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:  # does not exist, or cannot be read
        return
    if deepest:
        for name in inner:
            yield from run_directories(folder / name, deepest - 1, preparing)


def list_runs(folder: Path) -> list[RunSummary]:
    """Summarise the runs below a folder.

    Args:
        folder: The folder.

    Returns:
        The summaries, the run that changed last first.
    """
    found = map(summary_of, run_directories(folder, preparing=True))
    return sorted(found, key=lambda summary: (-summary.changed, str(summary.directory)))


def latest_run(folder: Path = RUNS) -> Path:
    """Return the run below a folder that changed last.

    Args:
        folder: The folder.

    Returns:
        The run directory.

    Raises:
        RunError: There is no run.
    """
    found = max(((_changed(d), d) for d in run_directories(folder)), default=None, key=lambda pair: pair[0])
    if found is None:
        raise RunError(f"there is no run below {folder}; {START}, or name the directory of a run")
    return found[1]


def summary_of(directory: Path) -> RunSummary:
    """Summarise a run.

    Args:
        directory: The run directory.

    Returns:
        The summary; that of a run that cannot be read says why.
    """
    if not (directory / FILE).is_file() and (early := _preparing(directory)) is not None:
        state = early.phase if early.phase in OVER else PREPARING
        return RunSummary(directory, state, _changed(directory), 0, early.total, error=early.error)
    try:
        run = load_run(directory)
        metric = run.objectives[0].metric
        try:
            status = read_status(run)
        except RunError:  # a run without a status, such as a copy of the journal alone
            status = None
        trials = [] if status else run.trials
        ranked = rank(trials, run.objectives)
        state = DONE if run.report else INTERRUPTED
    except RunError as problem:
        return RunSummary(directory, DAMAGED, _changed(directory), error=one_line(str(problem)))
    if status is None:
        ended = sum(trial.status != "running" for trial in trials)
        return RunSummary(directory, state, _changed(directory), ended, None, ranked[0] if ranked else None, metric)
    state, board = status.phase if status.phase in OVER else RUNNING, status.leaderboard
    return RunSummary(
        directory, state, _changed(directory), board.finished, status.total, board.leader, metric, status.error
    )


def _preparing(directory: Path) -> Status | None:
    """Return the status of a search that has no journal yet; None if there is none."""
    if not (directory / STATUS).is_file():
        return None
    try:
        return read_early_status(directory)
    except RunError:  # the file of another program
        return None


def _changed(directory: Path) -> float:
    """Return when a search last wrote to a run, in seconds since the epoch; 0 if that cannot be read."""
    times = [0.0]
    for name in (FILE, STATUS):
        try:
            times.append((directory / name).stat().st_mtime)
        except OSError:
            continue
    return max(times)
