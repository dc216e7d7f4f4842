"""How far a search is, published while it runs: to the watcher in this process and, through a file, to all others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nas_meta.controller.trial_loop import TrialLoop
from nas_meta.core.active_clock import ActiveClock
from nas_meta.core.objectives import Objective
from nas_meta.core.signals import Stop
from nas_meta.execution.engine import Engine
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.status import JOB, JOBS, Status, StatusFile, Watcher
from nas_meta.outputs.monitors.monitor import Monitors

BEAT = 10.0  # seconds between two signs of life
LOOK = 0.25  # seconds between two looks at the engine


@dataclass
class StatusReporter:
    """Publishes the status of one search.

    Attributes:
        directory: The run directory.
        objectives: What the search optimises.
        total: Trials of the budget.
        workers: Trials at a time.
        device: Where trials run, in words.
        stop: Whether the search was interrupted.
        watch: Called with every status.
        phase: What the search does now, a key of :data:`nas_meta.journal.status.PHASES`.
        started: When it began to search, in seconds since the epoch.
        job_steps: Steps that the running job takes in total, or number of models to test; 0 where that is not known.
        job_step: Steps that the running job has taken, or the number of models that are tested.
        loop: The trials; None until the journal is open.
        monitors: What watches the search; None until the journal is open.
        data_report: How the data were read and what was left out, in sentences; empty until the journal is open.
        clock: Counts the time in which the search runs.
        engine: Runs the trials; None until it has started.
        error: Why the search has failed, in one sentence; empty otherwise.
    """

    directory: Path
    objectives: Sequence[Objective]
    total: int
    workers: int
    device: str
    stop: Stop
    watch: Watcher
    phase: str = "preparing"
    started: float = field(default_factory=time.time)
    job_steps: int = 0
    job_step: int = 0
    loop: TrialLoop | None = None
    monitors: Monitors | None = None
    data_report: Sequence[str] = ()
    clock: ActiveClock = field(default_factory=ActiveClock)
    engine: Engine | None = None
    error: str = ""

    def __post_init__(self) -> None:
        self._file = StatusFile(self.directory)

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Keep the status file and the clock up to date during a block, also while nothing is published for minutes.

        If the engine dies, the file says so at once: Ray may end this process before anything else is done.

        Yields:
            Nothing; the block is the search.
        """
        ended = threading.Event()

        def beat() -> None:
            beaten = time.monotonic()
            while not ended.wait(LOOK):
                if not self.error and self.engine is not None and (reason := self.engine.failure()):
                    self.error = reason
                    self.write()
                if time.monotonic() - beaten > BEAT:
                    beaten = time.monotonic()
                    self.clock.seconds()
                    self._file.beat()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @property
    def leaderboard(self) -> Leaderboard:
        """The trials so far."""
        return self.loop.leaderboard if self.loop else Leaderboard(self.objectives)

    def enter(self, phase: str, error: str = "") -> None:
        """Begin a phase and publish it.

        Args:
            phase: A key of :data:`nas_meta.journal.status.PHASES`.
            error: Why the search has failed.
        """
        self.phase, self.error = phase, error or self.error
        if phase not in JOBS:
            self.job_step = self.job_steps = 0
        self.publish()

    def count(self, done: int, total: int) -> None:
        """Publish how many of the models are tested.

        Args:
            done: The number of models that are tested.
            total: The number of models to test.
        """
        self.job_step, self.job_steps = done, total
        self.publish()

    def publish(self) -> None:
        """Write the status file, at most once a second in the same phase, and call the watcher."""
        status = self.status()
        self._file.write(status)
        self.watch(status)

    def write(self) -> None:
        """Write the status file without calling the watcher."""
        self._file.write(self.status())

    def status(self) -> Status:
        """Return the search at this moment.

        Returns:
            Its phase, trials, steps and losses.
        """
        steps = {JOB: self.job_step} | (self.loop.steps if self.loop else {})
        phase = "finishing" if self.phase == "searching" and self.stop.is_set() else self.phase
        return Status(
            phase="failed" if self.error else phase,
            error=self.error,
            leaderboard=self.leaderboard,
            total=self.total,
            started=self.started,
            steps=steps,
            run_dir=self.directory,
            job_steps=self.job_steps,
            losses=dict(self.loop.losses) if self.loop else {},
            workers=self.workers,
            device=self.device,
            troubles=tuple(self.monitors.troubles) if self.monitors else (),
            data_report=self.data_report,
            earlier=self.loop.earlier if self.loop else 0,
        )
