"""How much of their time two workers work when trials differ in length: nothing waits for a generation to end."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

from benchmarks.table import Table

WORKERS = 2
TRIALS = 60
SHORTEST, LONGEST = 0.2, 3.0
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Unequal:
    """Stands where the evaluation stands: sleeps as long as the architecture says."""

    shortest: float = SHORTEST
    longest: float = LONGEST
    learner = SimpleNamespace(options=SimpleNamespace(steps=1))

    def with_rungs(self, *_: object) -> Unequal:
        return self

    def of(self, _: object) -> Unequal:
        return self

    def setup(self) -> None:
        time.sleep(0)

    def trial(self, architecture: object, *_: object) -> object:
        from nas_meta.evaluation import Result

        draw = Random(architecture.id)
        started = time.time()
        time.sleep(draw.uniform(self.shortest, self.longest))
        metrics = {"accuracy": draw.random(), "accuracy_ci95": 0.0, "params": 1, "flops": 1}
        return Result(metrics | {"began": started, "ended": time.time()})


def shares(seed: int) -> tuple[float, float, float]:
    """The workers' busy share until the last trial but ``WORKERS`` ends, the seconds that took, the longest gap.

    Busy is a worker between the first and the last moment of a trial, as the worker's own clock tells them.
    """
    from nas_meta import controller

    config = {
        "space": {"name": "bert-subnet"},
        "tasks": {"source": "botocore"},
        "strategy": {"name": "evolution"},
        "evaluation": {"test_best": 0},
        "budget": {"trials": TRIALS},
        "resources": {"workers": WORKERS},
        "seed": seed,
    }
    silent = patch.object(controller, "meta_test", lambda *_: {})
    untimed = patch.object(controller, "measure_each", lambda *_: [])
    asleep = patch.object(controller, "make_evaluation", lambda *_: Unequal())
    with tempfile.TemporaryDirectory() as folder, silent, untimed, asleep:
        trials = controller.search(config, Path(folder) / "run").trials
    times = sorted((t.metrics["began"], t.metrics["ended"]) for t in trials)
    # From when all workers have started until the last trial but as many as there are workers.
    first, last = times[WORKERS - 1][0], sorted(end for _, end in times)[-1 - WORKERS]
    busy = sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in times)
    waits = [min(abs(begin - end) for _, end in times if end <= begin) for begin, _ in times[WORKERS:]]
    return busy / (WORKERS * (last - first)), last - first, max(waits)


def measure() -> Table:
    rows = []
    for seed in SEEDS:
        share, seconds, gap = shares(seed)
        rows.append([str(seed), f"{share:.3f}", f"{seconds:.1f} s", f"{1000 * gap:.0f} ms"])
    return Table(
        ("seed", "busy share", "of", "longest wait of a worker for its next trial"),
        rows,
        f"{TRIALS} trials of {SHORTEST:g} to {LONGEST:g} s on {WORKERS} workers, evolution. From when both workers run "
        f"to the end of the last trial but {WORKERS}.",
    )
