"""Runs the jobs of a search: training the strategy's supernet, or domain adaptation.

A job runs before the first trial, on one worker or on several that train together. If a worker dies, the job restarts
from its last checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.config.sections import Config
from nas_meta.core.files import read_array
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.evaluation.progress import JobResult
from nas_meta.execution.engine import Engine, Event
from nas_meta.strategy.protocol import Job

if TYPE_CHECKING:
    from nas_meta.controller.domain_adaptation import AdaptationJob

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobKind:
    """The kind of a job: training the strategy's supernet, or domain adaptation.

    Attributes:
        number: Number that logs and status use in place of a trial id.
        phase: Phase of the search, a key of :data:`nas_meta.journal.status.PHASES`.
        failure: Beginning of the error message if the job fails.
        checkpoint: File in the run directory that holds the state of an unfinished job.
    """

    number: int
    phase: str
    failure: str
    checkpoint: str


SECONDS = 10.0  # how long to wait for the other workers of a job after one has failed


def workers_of(job: Job | AdaptationJob) -> int:
    """Return the number of workers that run a job together.

    Args:
        job: The job; its attribute ``workers`` is optional.

    Returns:
        The number; 1 by default.
    """
    return getattr(job, "workers", 1)


def check_workers(needed: int, available: int) -> None:
    """Check that the search has enough workers for the job of its strategy.

    Args:
        needed: The number of workers that run the job together.
        available: The number of workers of the search.

    Raises:
        ConfigError: The job needs more workers.
    """
    if needed > available:
        raise ConfigError(
            f"strategy.workers is {needed}, but the search has {available}; "
            "expected at most resources.workers, or 1 with --inline"
        )


def run_job(
    job: Job | AdaptationJob,
    engine: Engine,
    config: Config,
    checkpoint: Path,
    on_event: Callable[[Event | None], bool],
    failure: str,
) -> JobResult | None:
    """Run a job to its end, from its last checkpoint if there is one.

    If a worker dies, the job is restarted from the last checkpoint, up to ``resources.retries`` times. If the
    checkpoint of an earlier session cannot be read, the job is restarted from its beginning.

    Args:
        job: The job.
        engine: Runs the job on its workers.
        config: The config of the search.
        checkpoint: File of the last checkpoint; ``on_event`` writes it.
        on_event: Called with every event, and with None after a while without events; returns whether to continue.
        failure: Beginning of the error message if the job fails.

    Returns:
        The result of the job; None if ``on_event`` ended it.

    Raises:
        NasMetaError: The job failed.
    """
    progressed = False

    def observe(event: Event | None) -> bool:
        nonlocal progressed
        progressed = progressed or (event is not None and not event.done)
        return on_event(event)

    for retries_left in reversed(range(config.resources.retries + 1)):
        start = _read(checkpoint)
        end = _attempt(job, engine, config, start, observe)
        if start is not None and not progressed and end is not None and end.error and not end.died:
            log.warning("%s cannot be used, so the job starts anew: %s", checkpoint, end.error)
            checkpoint.unlink()
            end = _attempt(job, engine, config, None, observe)
        if end is None or not end.error:
            return end and end.value
        if not end.died or not retries_left:
            break
    raise NasMetaError(f"{failure}: {end.error}")


def _read(checkpoint: Path) -> np.ndarray | None:
    """Return the last checkpoint of a job; None without one, and where it cannot be read, which is logged."""
    if not checkpoint.is_file():
        return None
    try:
        return read_array(checkpoint)
    except OSError as error:
        log.warning("%s cannot be used, so the job starts anew: %s", checkpoint, error.strerror)
        return None


def _attempt(
    job: Job | AdaptationJob, engine: Engine, config: Config, start: Any, on_event: Callable[[Event | None], bool]
) -> Event | None:
    """Run a job once; return the event of its result or failure, or None if ``on_event`` ended it.

    Rank 0 returns the result. If one worker dies, the others fail because they wait for it: the death is the cause.
    """
    with _meeting_place(workers_of(job), engine, config) as ranks:
        running = set(range(len(ranks)))
        for number, rank in enumerate(ranks):
            engine.submit(number, "run", job, start, rank)
        result = failure = None
        for event in engine.events():
            if event is not None and event.done:
                running.discard(event.key)
                if event.error and (failure is None or event.died):
                    failure, since = event, time.monotonic()  # a death takes precedence over what it causes
                elif event.key == 0:
                    result = event
            if not on_event(event):
                return None
            if failure is not None and (failure.died or time.monotonic() - since > SECONDS):
                for number in running:
                    engine.cancel(number)
                return failure
        return failure or result


def _meeting_place(workers: int, engine: Engine, config: Config) -> Any:
    """Return a context with one rank per worker of a job; the rank of a single worker is None."""
    if workers == 1:
        return nullcontext([None])
    from nas_meta.learners.training.distributed import meeting_place

    one_gpu_each = config.device == "cuda" and (config.resources.gpus_per_trial or 0) >= 1
    return meeting_place(engine.host(), workers, "nccl" if one_gpu_each else "gloo")
