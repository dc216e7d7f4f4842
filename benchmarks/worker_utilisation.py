"""Share of the time that two workers are busy when trials differ in length.

``evolution`` is asynchronous, so no worker should wait for a generation to end. Trials sleep instead of training; the
journal, TensorBoard and Ray run as in any search.

usage: python -m benchmarks.run worker_utilisation
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks import stand_in
from benchmarks.table import Table

WORKERS = 2
TRIALS = 60
SHORTEST, LONGEST = 0.2, 3.0
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Unequal(stand_in.StandIn):
    """Stand-in for the evaluation: trials sleep for a time that the architecture determines.

    Attributes:
        shortest: shortest sleep in seconds.
        longest: longest sleep in seconds.
    """

    shortest: float = SHORTEST
    longest: float = LONGEST

    def trial(self, architecture: object, *_: object) -> object:
        from nas_meta.evaluation.progress import Result

        rng = Random(architecture.id)
        started = time.time()
        time.sleep(rng.uniform(self.shortest, self.longest))
        metrics = {"accuracy": rng.random(), "accuracy_ci95": 0.0, "params": 1, "flops": 1}
        return Result(metrics | {"began": started, "ended": time.time()})


def utilisation(seed: int) -> tuple[float, float, float]:
    """Runs one search and measures how busy its workers were.

    A worker is busy between the start and the end of a trial, by the worker's own clock.

    Returns:
        The busy share of all workers, the length of the measured period in seconds, and the longest wait of a worker
        for its next trial in seconds.
    """
    config = {
        "space": {"name": "bert-subnet"},
        "tasks": {"source": "botocore"},
        "strategy": {"name": "evolution"},
        "budget": {"trials": TRIALS},
        "resources": {"workers": WORKERS},
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        trials = stand_in.search(config, Path(folder) / "run", Unequal()).trials
    times = sorted((t.metrics["began"], t.metrics["ended"]) for t in trials)
    # The measured period: from when every worker runs a trial until as many trials are left as there are workers.
    # Outside this period, a worker may be idle merely because the search is starting or ending.
    first, last = times[WORKERS - 1][0], sorted(end for _, end in times)[-1 - WORKERS]
    busy = sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in times)
    waits = [min(abs(begin - end) for _, end in times if end <= begin) for begin, _ in times[WORKERS:]]
    return busy / (WORKERS * (last - first)), last - first, max(waits)


def measure() -> Table:
    """Busy shares and longest waits, one row per seed."""
    rows = []
    for seed in SEEDS:
        busy_share, period, longest_wait = utilisation(seed)
        rows.append([str(seed), f"{busy_share:.3f}", f"{period:.1f} s", f"{1000 * longest_wait:.0f} ms"])
    return Table(
        ("seed", "busy share", "measured period", "longest wait of a worker for its next trial"),
        rows,
        f"Evolution runs {TRIALS} trials of {SHORTEST:g} to {LONGEST:g} s on {WORKERS} workers. The measured period "
        f"starts when both workers are running and ends when all but the last {WORKERS} trials have ended.",
    )
