"""A strategy's job, from its last checkpoint to its end: on one worker, or on several that work together."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.config.sections import Config
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.evaluation.progress import JobResult
from nas_meta.execution.engine import Engine, Event
from nas_meta.strategy.protocol import Job

if TYPE_CHECKING:
    from nas_meta.controller.domain_adaptation import AdaptationJob


@dataclass(frozen=True)
class JobKind:
    """What tells the two jobs of a search apart: the strategy's supernet and domain adaptation.

    Attributes:
        number: What stands in the place of a trial's id in logs and status.
        phase: The phase of the search, a key of :data:`nas_meta.journal.status.PHASES`.
        failure: How the sentence about a failed job begins.
        checkpoint: File in the run directory that holds the state of an unfinished job.
    """

    number: int
    phase: str
    failure: str
    checkpoint: str


SECONDS = 10.0  # in which the others of a worker that failed tell how they ended


def workers_of(job: Job | AdaptationJob) -> int:
    """How many workers do a job together."""
    return getattr(job, "workers", 1)


def check_workers(job: Job, there: int) -> None:
    """Raises ConfigError where a job takes more workers than there are."""
    if workers_of(job) > there:
        raise ConfigError(
            f"strategy.workers is {workers_of(job)}, but the search has {there}; expected at most as many as "
            "resources.workers, and 1 with --inline"
        )


def run_job(
    job: Job | AdaptationJob,
    engine: Engine,
    config: Config,
    checkpoint: Path,
    on_event: Callable[[Event | None], bool],
    failure: str,
) -> JobResult | None:
    """Does a job; where a worker dies under it, once more from its last checkpoint, ``resources.retries`` times.

    Args:
        checkpoint: where ``on_event`` keeps it.
        on_event: told of every event, and of None after a while of silence; returns whether to go on.

    Returns:
        What the job found; None where it was not to go on.

    Raises:
        NasMetaError: the job failed.
    """
    for left in reversed(range(config.resources.retries + 1)):
        start = np.fromfile(checkpoint, dtype=np.uint8) if checkpoint.is_file() else None
        end = _attempt(job, engine, config, start, on_event)
        if end is None or not end.error:
            return end and end.value
        if not end.died or not left:
            break
    raise NasMetaError(f"{failure}: {end.error}")


def _attempt(
    job: Job | AdaptationJob, engine: Engine, config: Config, start: Any, on_event: Callable[[Event | None], bool]
) -> Event | None:
    """The event with which the job ended, well or not; None where it was not to go on."""
    with _meeting_place(workers_of(job), engine, config) as ranks:
        running = set(range(len(ranks)))
        for number, rank in enumerate(ranks):
            engine.submit(number, "run", job, start, rank)
        result = failure = None
        for event in engine.events():
            if event is not None and event.done:
                running.discard(event.key)
                if event.error and (failure is None or event.died):
                    failure, since = event, time.monotonic()  # that one died is why the others fail
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
    """Where the workers of a job find each other; one alone needs to find nobody."""
    if workers == 1:
        return nullcontext([None])
    from nas_meta.learners.training.distributed import meeting_place

    own_gpus = config.device == "cuda" and (config.resources.gpus_per_trial or 0) >= 1
    return meeting_place(engine.host(), workers, "nccl" if own_gpus else "gloo")
