"""A log for each trial, and how others read it.

Written by the driver from what travels with the events, so that it does not matter on which machine a trial runs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nas_meta.errors import RunError
from nas_meta.evaluation.metrics import ACCURACY
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.journal.status import ADAPTATION, JOB, read_status
from nas_meta.journal.status import JOBS as PHASES_OF_JOBS
from nas_meta.outputs.monitors.monitor import Monitor

FOLDER = "logs"
NAMES = {"supernet": JOB, "adapted": ADAPTATION}
JOBS = {JOB: ("the supernet", "trained"), ADAPTATION: ("the pretrained model", "adapted")}
MOST = 2_000_000  # characters that one part of a log may have before only its end is told
TICK = 0.5  # seconds between two looks at a log that is followed
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass
class _Part:
    """What one attempt at a trial has written."""

    file: TextIO
    room: int = MOST
    worker: str = ""


class TrialLogs(Monitor):
    """``RUN/logs/trial-0001.log`` for each trial and ``supernet.log`` for the strategy's job; open while it runs."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._open: dict[int, _Part] = {}
        self._job = JOB

    def trial_start(self, trial: Trial) -> None:
        part = self._part(trial.id)
        if part.file.tell():
            part.file.write("\n")
        steps = f"{trial.planned} steps, seed {trial.seed}"
        part.file.write(f"{now()}  trial {trial.id} begins: {steps}\n{json.dumps(dict(trial.architecture))}\n")
        part.file.flush()

    def output(self, number: int, text: str, worker: str) -> None:
        part = self._part(number)
        if worker and part.worker != worker:
            part.worker = worker
            self._write(number, f"{now()}  on the worker {worker}")
        if text:
            self._write(number, text.removesuffix("\n"))

    def trial_progress(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        self._step(trial.id, step, values)

    def job_start(self, number: int) -> None:
        self._job = number

    def job_progress(self, step: int, values: Mapping[str, float]) -> None:
        self._step(self._job, step, values)

    def job_end(self, error: str | None) -> None:
        what, done = JOBS[self._job]
        self._end(self._job, f"{what} is {f'not {done}: {error}' if error else done}")

    def _step(self, number: int, step: int, values: Mapping[str, float]) -> None:
        measured = "  ".join(f"{name} {value:.6g}" for name, value in values.items())
        self._write(number, f"{now()}  step {step}  {measured}")

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        accuracy = f", accuracy {trial.metrics[ACCURACY]:.4f}" if ACCURACY in trial.metrics else ""
        reason = f": {trial.error}" if trial.error else ""
        self._end(trial.id, f"trial {trial.id} is {trial.status} after {trial.fidelity} steps{accuracy}{reason}")

    def forget(self, trial: Trial, reason: str) -> None:
        self._end(trial.id, f"trial {trial.id} will be run again: {reason}")

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        for number in list(self._open):
            self._end(number, f"the search is {phase}" + (f": {error}" if error else ""))

    def _part(self, number: int) -> _Part:
        if number not in self._open:
            path = log_path(self._directory, number)
            # A run from somebody else must not lead what is written here to another place.
            if path.is_symlink() or path.parent.is_symlink():
                raise RunError(f"{path} is a link; expected a file of the run's own")
            path.parent.mkdir(exist_ok=True)
            self._open[number] = _Part(path.open("a", encoding="utf-8", errors="backslashreplace"))
        return self._open[number]

    def _write(self, number: int, text: str) -> None:
        part = self._part(number)
        if part.room <= 0:
            return
        part.file.write(f"{text}\n")
        part.room -= len(text) + 1
        if part.room <= 0:
            part.file.write(f"[more than {MOST:,} characters: what follows is left out up to the end]\n")
        part.file.flush()

    def _end(self, number: int, sentence: str) -> None:
        self._part(number).file.write(f"{now()}  {sentence}\n")
        self._open.pop(number).file.close()


def now() -> str:
    """The time as it stands in a log."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def log_path(directory: Path, number: int) -> Path:
    """Where the log of a trial lies, or under 0 that of the strategy's job, under -1 that of the adaptation."""
    name = next((n for n, job in NAMES.items() if job == number), f"trial-{number:04d}")
    return directory / FOLDER / f"{name}.log"


def numbered(name: str) -> int:
    """The number under which a log is kept, from a trial's id, ``supernet`` or ``adapted``.

    Raises:
        RunError: it is neither.
    """
    if name in NAMES:
        return NAMES[name]
    if not name.isdecimal() or int(name) == JOB:
        raise RunError(f"'{name}' is no trial; expected its number, or {' or '.join(NAMES)}")
    return int(name)


def read_log(run: Run, number: int, follow: bool = False) -> Iterator[str]:
    """The text of a log, without what would command a terminal; with ``follow`` also what comes until its end.

    Raises:
        RunError: there is no such trial, or it has no log.
    """
    path = log_path(run.directory, number)
    job = number in JOBS
    what = JOBS[number][0].replace("the ", "its ") if job else f"trial {number}"
    ended = (lambda: job_ended(run)) if job else lambda: run.trial(number).status != "running"
    ended()  # refuses a trial that is not there
    if not path.is_file():
        raise RunError(f"{run.directory} has no log of {what}: it has not begun, or an older nas-meta ran it")
    return _text(path, ended if follow else lambda: True)


def job_ended(run: Run) -> bool:
    """Whether nothing runs any more that comes before the first trial."""
    return read_status(run).phase not in ("preparing", *PHASES_OF_JOBS)


def _text(path: Path, ended: Callable[[], bool]) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            last = ended()  # before the look: what comes with the end is still told
            while text := file.read(1 << 16):
                yield UNPRINTABLE.sub("?", text)
            if last:
                return
            time.sleep(TICK)
