"""Zero-cost scores against the accuracy after training: how far each ranks 40 random architectures of a space."""

from __future__ import annotations

import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kept
from benchmarks.timed_search import evaluation_of

KEPT = Path(__file__).with_suffix(".json")
COUNT, SEED = 40, 1
COMMON = {"evaluation": {"episodes": 200, "test_best": 0}}
SPACES: dict[str, dict[str, Any]] = {
    "bert-subnet": {"space": {"name": "bert-subnet"}, "learner": {"name": "protonet", "steps": 60}, **COMMON},
    "encoder": {
        "space": {"name": "encoder"},
        "learner": {"name": "protonet", "steps": 60, "lr": 5e-4, "train_embeddings": True},
        **COMMON,
    },
}


@cache
def evaluation(space: str) -> Any:
    return evaluation_of(SPACES[space])


def architectures(space: Any) -> list[Any]:
    """Random ones, none twice."""
    rng, found = np.random.default_rng(11), {}
    while len(found) < COUNT:
        architecture = space.sample(rng)
        found[architecture.id] = architecture
    return list(found.values())


def trained(space: str, number: int) -> dict[str, Any]:
    """One architecture trained as a trial is."""
    from nas_meta.evaluation import result_of

    of = evaluation(space)
    architecture = architectures(of.space)[number]
    started = time.process_time()
    metrics = result_of(of.trial(architecture, SEED)).metrics
    names = ("accuracy", "accuracy_ci95", "params", "flops")
    return {"id": architecture.id, **{k: metrics[k] for k in names}, "seconds": time.process_time() - started}


def train(space: str) -> dict[str, dict[str, Any]]:
    results = kept.read(KEPT)
    for number in range(COUNT):
        key = f"{space} trained {number}"
        if key not in results:
            results[key] = trained(space, number)
            kept.write(KEPT, results)
    return results


if __name__ == "__main__":
    train(sys.argv[1])
