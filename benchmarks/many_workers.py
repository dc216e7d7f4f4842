"""CPU time that a trial costs the driver of a search with 1,000 workers.

The benchmark has two parts, with everything enabled that users have:

- The search: proposals, journal, TensorBoard and status, on a simulated engine whose 1,000 workers are entries in a
  heap and whose minutes pass at once.
- Ray: the real engine with real processes on this machine, which report 60 steps per trial.

usage: python -m benchmarks.run many_workers
"""

from __future__ import annotations

import heapq
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import stand_in
from benchmarks.overhead import Sleeper
from benchmarks.table import Table

STEPS = 60
WORKERS = 1000
TRIALS = 5000
TIMED_AFTER = (1100, 2000, 4900)  # numbers of trials after which the next hundred are timed
PROCESSES = 40
MINUTE = 60  # mean length of a trial in seconds


class SimulatedEngine:
    """Discrete-event simulation of an engine: a heap holds the future events of all workers, ordered by time.

    Args:
        workers: number of simulated workers.
        steps: progress events per trial.

    Attributes:
        submitted: CPU seconds of the driver at every submitted trial.
    """

    def __init__(self, workers: int, steps: int):
        self.workers, self.steps = workers, steps
        self.submitted: list[float] = []
        self._rng = random.Random(0)
        self._heap: list[tuple[float, int, Any]] = []
        self._now, self._number, self._busy = 0.0, 0, 0

    def free(self) -> int:
        return self.workers - self._busy

    def await_worker(self) -> bool:
        return self.free() > 0

    def submit(self, key: Any, method: str, *arguments: Any) -> None:
        from nas_meta.evaluation.progress import Progress, Result
        from nas_meta.execution.engine import Event

        self.submitted.append(time.process_time())
        self._busy += 1
        length, accuracy = self._rng.uniform(0.5, 1.5) * MINUTE, self._rng.uniform(0.5, 0.7)
        for step in range(1, self.steps + 1):
            self._schedule(length * step / (self.steps + 1), Event(key, Progress(step, {"loss": 1 / step})))
        metrics = {
            "accuracy": accuracy, "accuracy_ci95": 0.01, "params": 1e6, "flops": 1e6 * self._rng.uniform(1, 2),
            "train_seconds": length, "evaluate_seconds": 0.0,
        }  # fmt: skip
        self._schedule(length, Event(key, Result(metrics), done=True))

    def _schedule(self, seconds: float, event: Any) -> None:
        """Lets an event happen after some simulated seconds."""
        self._number += 1
        heapq.heappush(self._heap, (self._now + seconds, self._number, event))

    def events(self) -> Iterator[Any]:
        while self._heap:
            self._now, _, event = heapq.heappop(self._heap)
            self._busy -= event.done
            yield event

    def host(self) -> str:
        return "simulated"

    def failure(self) -> str | None:
        return None

    def close(self) -> None:
        self._heap.clear()


def search_seconds(workers: int, trials: int, steps: int, after: tuple[int, ...]) -> list[float]:
    """Runs a search on simulated workers and measures what a trial costs the driver.

    Args:
        workers: number of simulated workers.
        trials: number of trials.
        steps: progress events per trial.
        after: numbers of trials after which the next hundred are timed.

    Returns:
        CPU seconds per trial, one value for each entry of ``after``.
    """
    engine = SimulatedEngine(workers, steps)
    config = {
        "space": {"name": "bert-subnet", "heads": [1.0, 0.75, 0.5], "ffn": [1.0, 0.75, 0.5, 0.25]},
        "tasks": {"source": "botocore"},
        # Small tournaments: accuracies are random here, and with large ones evolution would mutate a single parent
        # until no new architecture is left near it.
        "strategy": {"name": "evolution", "population": workers, "sample": 10, "mutation": 0.3},
        "budget": {"trials": trials},
        "resources": {"workers": workers},
    }
    with tempfile.TemporaryDirectory() as folder:
        stand_in.search(config, Path(folder) / "run", Sleeper(), engine)
    return [(engine.submitted[n + 99] - engine.submitted[n]) / 99 for n in after]


@dataclass(frozen=True)
class SteadyPayload:
    """Payload of the engine that reports its steps at even intervals."""

    def setup(self) -> None:
        time.sleep(0)

    def trial(self, steps: int, seconds: float) -> Iterator[int]:
        for step in range(steps):
            time.sleep(seconds / steps)
            yield step


def ray_seconds(workers: int, processes: int, steps: int) -> tuple[float, float]:
    """Runs one-minute trials on Ray and measures what a trial costs the driver.

    Each process bundles its events as one of ``workers`` would, so that a trial sends as many messages as it would
    there. All processes together send them at ``processes / workers`` times the rate of all workers.

    Args:
        workers: number of workers whose bundling is imitated.
        processes: number of real processes.
        steps: progress events per trial.

    Returns:
        CPU seconds of the driver per trial, and messages per trial.
    """
    from nas_meta.execution import ray_engine

    # The engine derives one value from the number of workers: how long each of them gathers events before it sends.
    with patch.object(ray_engine, "MESSAGES", ray_engine.MESSAGES * processes / workers):
        engine = ray_engine.RayEngine(SteadyPayload(), ray_engine.Resources(processes, 0.001))
    while engine.free() < processes:
        time.sleep(0.2)
    for key in range(processes):
        engine.submit(key, "trial", steps, MINUTE)
    began, trials = time.process_time(), 0
    for event in engine.events():
        if event is not None and event.done:
            assert event.error is None, event.error
            trials += 1
    taken = time.process_time() - began
    engine.close()
    return taken / trials, 1 + MINUTE / max(workers / ray_engine.MESSAGES, MINUTE / steps)


def polling_seconds(streams: int) -> float:
    """CPU seconds in which the engine polls all running calls for one message; it calls ``ray.wait`` twice.

    Args:
        streams: number of running calls.
    """
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)

    @ray.remote
    class Silent:
        @ray.method(num_returns="streaming")
        def call(self) -> Iterator[int]:
            time.sleep(10 * MINUTE)
            yield 0

    actor = Silent.remote()
    running = [actor.call.remote() for _ in range(streams)]
    messages, began = 100, time.process_time()
    for _ in range(2 * messages):
        ray.wait(running, num_returns=1, timeout=0, fetch_local=False)
    taken = time.process_time() - began
    ray.shutdown()
    return taken / messages


def measure() -> Table:
    """CPU time per trial, one row per part, and their total."""
    rows, largest = [], 0.0
    for number, seconds in zip(TIMED_AFTER, search_seconds(WORKERS, TRIALS, STEPS, TIMED_AFTER), strict=True):
        largest = max(largest, seconds)
        rows.append([f"the search, {WORKERS:,} simulated workers", f"{number:,} to {number + 100:,}",
                     f"{1000 * seconds:.1f} ms"])  # fmt: skip
    ray_part, messages = ray_seconds(WORKERS, PROCESSES, STEPS)
    rows.append([f"Ray's engine, {PROCESSES} processes that bundle as {WORKERS:,} would", f"1 to {PROCESSES}",
                 f"{1000 * ray_part:.1f} ms"])  # fmt: skip
    polling = messages * polling_seconds(WORKERS)
    rows.append([f"Ray's polling of {WORKERS:,} running calls, if every message arrived alone", "",
                 f"{1000 * polling:.1f} ms"])  # fmt: skip
    total = largest + ray_part + polling
    rows.append(["**total**, with the largest value of the search", "", f"**{1000 * total:.1f} ms**"])
    return Table(
        ("part", "trials", "driver CPU time per trial"),
        rows,
        f"Each trial takes a minute and reports {STEPS} progress events, which Ray carries in about {messages:.0f} "
        f"messages. At this cost, one driver core serves {MINUTE / total:,.0f} workers with one-minute trials; 1,000 "
        "workers leave it 60 ms per trial.",
    )
