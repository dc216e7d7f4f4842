"""What a trial costs the driver where hundreds run at a time: its CPU seconds, with everything that users have on.

Two parts. *The search*: proposals, journal, TensorBoard, status, with an engine whose 1,000 workers are entries in a
heap and whose minutes pass at once. *Ray*: the real engine with real processes here that tell 60 steps a trial.
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

from benchmarks.overhead import Sleeper
from benchmarks.table import Table

STEPS = 60
WORKERS = 1000
TRIALS = 5000
AT = (1100, 2000, 4900)  # trials after which the next hundred are timed
PROCESSES = 40
MINUTE = 60


class Simulated:
    """An engine without workers: what they would do lies in a heap by the time at which they would do it."""

    def __init__(self, workers: int, steps: int):
        self.workers, self.steps = workers, steps
        self.submitted: list[float] = []  # CPU seconds of the driver at every submit
        self._luck = random.Random(0)
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
        length, accuracy = self._luck.uniform(0.5, 1.5) * MINUTE, self._luck.uniform(0.5, 0.7)
        for step in range(1, self.steps + 1):
            self._at(length * step / (self.steps + 1), Event(key, Progress(step, {"loss": 1 / step})))
        metrics = {
            "accuracy": accuracy, "accuracy_ci95": 0.01, "params": 1e6, "flops": 1e6 * self._luck.uniform(1, 2),
            "train_seconds": length, "evaluate_seconds": 0.0,
        }  # fmt: skip
        self._at(length, Event(key, Result(metrics), done=True))

    def _at(self, seconds: float, event: Any) -> None:
        self._number += 1
        heapq.heappush(self._heap, (self._now + seconds, self._number, event))

    def events(self) -> Iterator[Any]:
        while self._heap:
            self._now, _, event = heapq.heappop(self._heap)
            self._busy -= event.done
            yield event

    def close(self) -> None:
        self._heap.clear()


def searching(workers: int, trials: int, steps: int, at: tuple[int, ...]) -> list[float]:
    """CPU seconds a trial of the hundred trials that follow on those numbers, in a search with simulated workers."""
    from nas_meta.controller import phases

    engine = Simulated(workers, steps)
    config = {
        "space": {"name": "bert-subnet", "heads": [1.0, 0.75, 0.5], "ffn": [1.0, 0.75, 0.5, 0.25]},
        "tasks": {"source": "botocore"},
        # Small tournaments: it is judged by chance here, and would breed one parent until nothing near it is new.
        "strategy": {"name": "evolution", "population": workers, "sample": 10, "mutation": 0.3},
        "evaluation": {"test_best": 0},
        "budget": {"trials": trials},
        "resources": {"workers": workers},
    }
    silent = patch.object(phases, "meta_test", lambda *_: {})
    untimed = patch.object(phases, "measure_each", lambda *_: [])
    asleep = patch.object(phases, "make_evaluation", lambda *_: Sleeper())
    simulated = patch.object(phases._Search, "_engine", lambda *_: engine)
    with tempfile.TemporaryDirectory() as folder, silent, untimed, asleep, simulated:
        phases.search(config, Path(folder) / "run")
    return [(engine.submitted[n + 99] - engine.submitted[n]) / 99 for n in at]


@dataclass(frozen=True)
class Steady:
    """A payload that tells its steps at even intervals."""

    def setup(self) -> None:
        time.sleep(0)

    def trial(self, steps: int, seconds: float) -> Iterator[int]:
        for step in range(steps):
            time.sleep(seconds / steps)
            yield step


def ray_seconds(stands_for: int, processes: int, steps: int) -> tuple[float, float]:
    """CPU seconds a trial that Ray takes in the driver, and messages a trial, with trials of a minute.

    Each of the processes gathers what it tells as it would among ``stands_for``; together they tell as often as
    a minute of that many would, ``processes / stands_for`` times slower.
    """
    from nas_meta.execution import ray_engine

    # Only one number follows from the number of workers: for how long each gathers.
    with patch.object(ray_engine, "MESSAGES", ray_engine.MESSAGES * processes / stands_for):
        engine = ray_engine.RayEngine(Steady(), ray_engine.Resources(processes, 0.001))
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
    return taken / trials, 1 + MINUTE / max(stands_for / ray_engine.MESSAGES, MINUTE / steps)


def waiting_seconds(streams: int) -> float:
    """CPU seconds of the two looks at so many running calls that the engine takes for a message."""
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
    times, began = 100, time.process_time()
    for _ in range(2 * times):
        ray.wait(running, num_returns=1, timeout=0, fetch_local=False)
    taken = time.process_time() - began
    ray.shutdown()
    return taken / times


def measure() -> Table:
    rows, whole = [], 0.0
    for number, seconds in zip(AT, searching(WORKERS, TRIALS, STEPS, AT), strict=True):
        whole = max(whole, seconds)
        rows.append([f"the search, {WORKERS:,} simulated workers", f"{number:,} to {number + 100:,}",
                     f"{1000 * seconds:.1f} ms"])  # fmt: skip
    by_ray, messages = ray_seconds(WORKERS, PROCESSES, STEPS)
    rows.append([f"Ray's engine, {PROCESSES} processes that gather as {WORKERS:,} would", f"1 to {PROCESSES}",
                 f"{1000 * by_ray:.1f} ms"])  # fmt: skip
    waiting = messages * waiting_seconds(WORKERS)
    rows.append([f"Ray's looks at {WORKERS:,} running calls, were every message to come alone", "",
                 f"{1000 * waiting:.1f} ms"])  # fmt: skip
    total = whole + by_ray + waiting
    rows.append(["**together**, the largest of the search", "", f"**{1000 * total:.1f} ms**"])
    return Table(
        ("part", "trials", "driver's CPU time a trial"),
        rows,
        f"Trials of a minute with {STEPS} progress events, which Ray carries in about {messages:.0f} messages. At "
        f"that cost one core of a driver serves {MINUTE / total:,.0f} workers whose trials take a minute; 1,000 of "
        "them leave 60 ms a trial.",
    )
