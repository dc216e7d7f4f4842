"""A search at one moment: for whoever watches it in its process, and through a file for everybody else."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas_meta.core.files import regular_file
from nas_meta.errors import RunError
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run, write_atomically

FILE = "status.json"
MOST_BYTES = 16 * 2**20  # of a status file
EVERY = 1.0  # seconds between two writings
JOB, ADAPTATION = 0, -1  # stand where trials have their number
PHASES = {
    "preparing": "preparing data and weights",
    "adapting the model": "adapting the pretrained model to the corpus",
    "training the supernet": "training the supernet",
    "measuring latencies": "measuring latencies",
    "searching": "searching",
    "finishing": "finishing what runs (Ctrl-C again ends it at once)",
    "meta-testing": "meta-testing the best",
    "done": "done",
    "interrupted": "interrupted",
    "failed": "failed",
}
JOBS = ("adapting the model", "training the supernet")  # before the first trial
OVER = ("done", "interrupted", "failed")


@dataclass(frozen=True)
class Status:
    """A search at one moment.

    Attributes:
        phase: what it does, a key of :data:`PHASES`.
        leaderboard: its trials; those of a search in this process go on changing when the watcher has returned.
        total: trials of the budget.
        started: when it began to search, in seconds since the epoch.
        steps: meta-training steps that running trials have taken, by trial; those of the strategy's job under 0.
        losses: the loss of the last of these.
        workers: trials at a time.
        troubles: what went wrong with watching it (logs, hooks, ...), in sentences.
        written: when this was so.
        where: host and process.
    """

    phase: str
    leaderboard: Leaderboard
    total: int
    started: float
    steps: Mapping[int, int]
    run_dir: Path
    job_steps: int = 0
    losses: Mapping[int, float] = field(default_factory=dict)
    workers: int = 1
    troubles: Sequence[str] = ()
    written: float = field(default_factory=time.time)
    where: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    data_report: Sequence[str] = ()  # how the data were read and what was left out, in sentences

    def as_dict(self) -> dict[str, Any]:
        """Plain data, without what the journal holds."""
        return {
            name: value for name, value in vars(self).items() if name not in ("leaderboard", "run_dir", "data_report")
        }

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial so far, in the order they first started; looks through all of them."""
        return tuple(self.leaderboard.trials.values())

    @property
    def over(self) -> bool:
        """Whether the search has ended, one way or another."""
        return self.phase in OVER

    @property
    def failures(self) -> Mapping[str, int]:
        """How many trials failed, by reason, the most frequent first."""
        return {reason: count for reason, count in self.leaderboard.failures.most_common() if count}


Watcher = Callable[[Status], None]


class StatusFile:
    """Keeps what others may read of a running search up to date, at most once a second."""

    def __init__(self, directory: Path):
        self.path, self._last = directory / FILE, 0.0

    def write(self, status: Status) -> None:
        """What is in the journal is not repeated."""
        if status.written - self._last < EVERY and not status.over:
            return
        self._last = status.written
        # It is only for those who look: what cannot be written here ends no search.
        with suppress(OSError):
            write_atomically(self.path, json.dumps(status.as_dict()).encode())


def read_status(run: Run) -> Status:
    """What a search wrote last, with the trials of its journal.

    Raises:
        RunError: it wrote nothing that can be read.
    """
    path = run.directory / FILE
    try:
        plain: dict[str, Any] = json.loads(regular_file(path, MOST_BYTES).read_bytes())
        PHASES[plain["phase"]]
        times = {name: _finite(plain[name]) for name in ("started", "written")}
        counts = {name: int(plain[name]) for name in ("total", "job_steps", "workers")}
        told = {"where": str(plain["where"]), "troubles": tuple(map(str, plain.get("troubles", ())))}
        steps = {int(key): int(value) for key, value in plain["steps"].items()}
        losses = {int(key): float(value) for key, value in plain["losses"].items()}
        numbered = {"steps": steps, "losses": losses}
        leaderboard = Leaderboard.of(run.trials, run.objectives)
        return Status(leaderboard=leaderboard, run_dir=run.directory, **(plain | times | counts | told | numbered))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: no search has said there how far it is") from error


def _finite(value: Any) -> float:
    """Seconds that can be shown."""
    seconds = float(value)
    if not abs(seconds) < 1e12:
        raise ValueError(seconds)
    return seconds
