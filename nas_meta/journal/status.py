"""The status of a search at one moment: passed to the watcher in its process, and written to a file for all others."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas_meta.core.files import regular_file, write_atomically
from nas_meta.core.objectives import Objective
from nas_meta.errors import RunError
from nas_meta.evaluation.metrics import ACCURACY
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run

FILE = "status.json"
MOST_BYTES = 16 * 2**20  # of a status file
EVERY = 1.0  # least seconds between two writes in the same phase
SILENCE = 30.0  # seconds without a write after which a search whose process does not exist has been killed
JOB, ADAPTATION = 0, -1  # numbers of jobs, where trials have their id
PHASES = {
    "preparing": "preparing data and weights",
    "adapting the model": "adapting the pretrained model to the corpus",
    "training the supernet": "training the supernet",
    "measuring latencies": "measuring latencies",
    "searching": "searching",
    "finishing": "finishing running trials (press Ctrl-C again to end them immediately)",
    "final training": "training the best further",
    "meta-testing": "meta-testing the best",
    "done": "done",
    "interrupted": "interrupted",
    "failed": "failed",
}
JOBS = ("adapting the model", "training the supernet")  # before the first trial
TRAINING = "final training"
COUNTED = (TRAINING, "meta-testing")  # phases that count models
OVER = ("done", "interrupted", "failed")


@dataclass(frozen=True)
class Status:
    """A search at one moment.

    Attributes:
        phase: The phase of the search, a key of :data:`PHASES`.
        leaderboard: The trials. A search in this process keeps changing them after the watcher has returned.
        total: Trials of the budget.
        started: When the search began, in seconds since the epoch.
        steps: Meta-training steps that running trials have taken, by trial id; those of the running job under 0, as
            well as the number of models that are trained further or tested.
        run_dir: The run directory.
        job_steps: Steps that the running job takes in total, or the number of models to train or test; 0 if that is
            not known.
        losses: The last meta-training loss of running trials, by trial id.
        workers: Number of trials that run at a time.
        troubles: Sentences about monitors that failed, such as logs and hooks.
        written: When the status was taken, in seconds since the epoch.
        where: Host and process id of the search.
        device: Where trials run, in words.
        data_report: How the data were read and what was left out, in sentences.
        error: Why the search has failed, in one sentence; empty otherwise.
        earlier: Number of trials that had ended when this process began, in a search that is resumed.
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
    device: str = ""
    data_report: Sequence[str] = ()
    error: str = ""
    earlier: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the status as plain data, without the trials, which the journal holds.

        Returns:
            The attributes except ``leaderboard``, ``run_dir`` and ``data_report``.
        """
        recorded = ("leaderboard", "run_dir", "data_report")
        return {name: value for name, value in vars(self).items() if name not in recorded}

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial so far, in the order of their first start; takes time proportional to their number."""
        return tuple(self.leaderboard.trials.values())

    @property
    def over(self) -> bool:
        """Whether the search has ended: it is done, was interrupted or failed."""
        return self.phase in OVER

    @property
    def failures(self) -> Mapping[str, int]:
        """The number of failed trials by reason, the most frequent first."""
        return {reason: count for reason, count in self.leaderboard.failures.most_common() if count}


Watcher = Callable[[Status], None]


class StatusFile:
    """The file that shows other processes how far a search is; written at most once a second in the same phase.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: Path):
        self.path, self._written_at = directory / FILE, -EVERY
        self._last: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def write(self, status: Status) -> None:
        """Write a status, unless the last one was written less than a second ago.

        Args:
            status: The status; the first one of a phase, and those after the end, are always written.
        """
        with self._lock:
            document = status.as_dict()
            same_phase = self._last is not None and self._last["phase"] == status.phase
            self._last = document
            if not same_phase or status.over or time.monotonic() - self._written_at >= EVERY:
                self._write(document)

    def beat(self) -> None:
        """Write the last status again, to show that the search is alive; may be called from any thread."""
        with self._lock:
            if self._last is not None and self._last["phase"] not in OVER:
                self._write({**self._last, "written": time.time()})

    def _write(self, document: Mapping[str, Any]) -> None:
        self._written_at = time.monotonic()
        # The file only informs readers: a full disk must not end the search here.
        with suppress(OSError):
            write_atomically(self.path, json.dumps(document).encode(), durable=False, private=True)


def read_status(run: Run) -> Status:
    """Read the last status that a search wrote, with the trials of its journal.

    Args:
        run: The run.

    Returns:
        The status. A search whose process was killed is ``interrupted``.

    Raises:
        RunError: There is no status file, or it is damaged.
    """
    return _status_in(run.directory, lambda: Leaderboard.of(run.trials, run.objectives))


def read_early_status(directory: Path) -> Status:
    """Read the last status of a search that has no journal yet.

    Args:
        directory: The run directory.

    Returns:
        The status, without trials. A search whose process was killed is ``interrupted``.

    Raises:
        RunError: There is no status file, or it is damaged.
    """
    return _status_in(directory, lambda: Leaderboard.of([], [Objective(ACCURACY)]))


def _status_in(directory: Path, leaderboard: Callable[[], Leaderboard]) -> Status:
    path = directory / FILE
    try:
        plain: dict[str, Any] = json.loads(regular_file(path, MOST_BYTES).read_bytes())
        PHASES[plain["phase"]]
        times = {name: _finite(plain[name]) for name in ("started", "written")}
        counts = {name: int(plain[name]) for name in ("total", "job_steps", "workers")}
        counts["earlier"] = int(plain.get("earlier", 0))
        texts = {"where": str(plain["where"]), "troubles": tuple(map(str, plain.get("troubles", ())))}
        texts |= {name: str(plain.get(name, "")) for name in ("device", "error")}  # earlier versions wrote none
        steps = {int(key): int(value) for key, value in plain["steps"].items()}
        losses = {int(key): float(value) for key, value in plain["losses"].items()}
        by_trial = {"steps": steps, "losses": losses}
        if plain["phase"] not in OVER and time.time() - times["written"] > SILENCE and _is_gone(texts["where"]):
            plain["phase"] = "interrupted"
        board = leaderboard()
        return Status(leaderboard=board, run_dir=directory, **(plain | times | counts | texts | by_trial))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: it is not a status that a search wrote") from error


def _is_gone(where: str) -> bool:
    """Return whether a process, ``host:id``, belonged to this host and does not exist any more."""
    host, _, process = where.rpartition(":")
    if host != socket.gethostname() or not process.isdecimal() or os.name != "posix":
        return False
    try:
        os.kill(int(process), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _finite(value: Any) -> float:
    """Return a time in seconds that can be printed; raise ValueError for any other value."""
    seconds = float(value)
    if not abs(seconds) < 1e12:
        raise ValueError(seconds)
    return seconds
