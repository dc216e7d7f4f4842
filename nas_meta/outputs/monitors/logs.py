"""Write a log file for each trial, and read the logs from other processes.

The driver writes the logs from the output that workers attach to their events, so a log is complete no matter which
machines the trial ran on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nas_meta.core.files import regular_file
from nas_meta.errors import RunError, printable
from nas_meta.evaluation.metrics import ACCURACY
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.journal.status import ADAPTATION, JOB, read_status
from nas_meta.journal.status import JOBS as PHASES_OF_JOBS
from nas_meta.outputs.monitors.monitor import Monitor

FOLDER = "logs"
NAMES = {"supernet": JOB, "adapted": ADAPTATION}
JOBS = {JOB: "training of the supernet", ADAPTATION: "domain adaptation of the pretrained model"}
MAX_CHARACTERS = 2_000_000  # of one attempt at a trial; after them only its last line is logged
MOST_BYTES = 2**28  # of a log that is read
TICK = 0.5  # seconds between two reads of a log that is followed


@dataclass
class _OpenLog:
    """The open log of one attempt at a trial."""

    file: TextIO
    remaining: int = MAX_CHARACTERS
    worker: str = ""


class TrialLogs(Monitor):
    """Writes the logs of a search to ``RUN/logs``.

    A trial has a log such as ``trial-0001.log``, the job of the strategy ``supernet.log``, and domain adaptation
    ``adapted.log``. A file is open only while its trial or job runs.

    Args:
        directory: Run directory.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._open: dict[int, _OpenLog] = {}
        self._job = JOB

    def trial_start(self, trial: Trial) -> None:
        log = self._log(trial.id)
        if log.file.tell():
            log.file.write("\n")
        steps = f"{trial.planned} steps, seed {trial.seed}"
        log.file.write(f"{now()}  trial {trial.id} starts: {steps}\n{json.dumps(dict(trial.architecture))}\n")
        log.file.flush()

    def output(self, number: int, text: str, worker: str) -> None:
        log = self._log(number)
        if worker and log.worker != worker:
            log.worker = worker
            self._write(number, f"{now()}  on worker {worker}")
        if text:
            self._write(number, text.removesuffix("\n"))

    def trial_progress(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        self._step(trial.id, step, values)

    def job_start(self, number: int) -> None:
        self._job = number

    def job_progress(self, step: int, values: Mapping[str, float]) -> None:
        self._step(self._job, step, values)

    def job_end(self, error: str | None) -> None:
        self._end(self._job, f"{JOBS[self._job]} {f'failed: {error}' if error else 'completed'}")

    def _step(self, number: int, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a step."""
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
            self._end(number, f"search {phase}" + (f": {error}" if error else ""))

    def _log(self, number: int) -> _OpenLog:
        """Return the open log of a trial or job; open it if necessary."""
        if number not in self._open:
            path = log_path(self._directory, number)
            # Do not follow links: a run directory from somebody else could redirect writes to any file.
            if path.is_symlink() or path.parent.is_symlink():
                raise RunError(f"{path} is a link; expected a regular file in the run directory")
            path.parent.mkdir(exist_ok=True)
            self._open[number] = _OpenLog(path.open("a", encoding="utf-8", errors="backslashreplace"))
        return self._open[number]

    def _write(self, number: int, text: str) -> None:
        """Append text to a log, up to ``MAX_CHARACTERS``."""
        log = self._log(number)
        if log.remaining <= 0:
            return
        log.file.write(f"{text}\n")
        log.remaining -= len(text) + 1
        if log.remaining <= 0:
            log.file.write(f"[more than {MAX_CHARACTERS:,} characters: everything up to the last line is omitted]\n")
        log.file.flush()

    def _end(self, number: int, sentence: str) -> None:
        """Append the last line to a log and close it."""
        self._log(number).file.write(f"{now()}  {sentence}\n")
        self._open.pop(number).file.close()


def now() -> str:
    """Return the local time as logs show it."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def log_path(directory: Path, number: int) -> Path:
    """Return the path of a log.

    Args:
        directory: Run directory.
        number: ID of a trial, 0 for the job of the strategy, or -1 for domain adaptation.
    """
    name = next((n for n, job in NAMES.items() if job == number), f"trial-{number:04d}")
    return directory / FOLDER / f"{name}.log"


def log_number(name: str) -> int:
    """Return the number of a log by its name.

    Args:
        name: ID of a trial, ``supernet`` or ``adapted``.

    Raises:
        RunError: The name is none of them.
    """
    if name in NAMES:
        return NAMES[name]
    if not name.isdecimal() or int(name) == JOB:
        raise RunError(f"'{name}' is not a trial; expected the ID of a trial, or {' or '.join(NAMES)}")
    return int(name)


def read_log(run: Run, number: int, follow: bool = False) -> Iterator[str]:
    """Read a log; control characters, which could command a terminal, are escaped.

    Args:
        run: The run.
        number: ID of a trial, 0 for the job of the strategy, or -1 for domain adaptation.
        follow: Whether to wait for new text until the trial or job ends.

    Returns:
        An iterator over the text in pieces.

    Raises:
        RunError: The trial does not exist or has no log.
    """
    path = log_path(run.directory, number)
    job = number in JOBS
    name = f"the {JOBS[number]}" if job else f"trial {number}"
    ended = (lambda: job_ended(run)) if job else lambda: run.trial(number).status != "running"
    ended()  # raises RunError if the trial does not exist
    if not path.is_file():
        raise RunError(f"{run.directory} has no log of {name}; it has not started, or an older nas-meta ran it")
    try:
        regular_file(path, MOST_BYTES)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    return _text(path, ended if follow else lambda: True)


def job_ended(run: Run) -> bool:
    """Return whether all jobs before the first trial have ended.

    Args:
        run: The run.
    """
    return read_status(run).phase not in ("preparing", *PHASES_OF_JOBS)


def _text(path: Path, ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the text of a file until it ends."""
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            last = ended()  # checked before the read, so that the last lines are not missed
            while text := file.read(1 << 16):
                yield printable(text)
            if last:
                return
            time.sleep(TICK)
