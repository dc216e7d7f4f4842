"""A finished run whose trials are planted: which choice matters, and what every model got right, is known."""

import random

import numpy as np

from nas_meta.journal.database import Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.run import load_run
from nas_meta.strategy.stopping.rule import RungReport

HOSTILE = "<script>alert(1)</script>"
EPISODES, QUERIES = 50, 20


def architecture(rng):
    """A random architecture: ``depth`` decides, ``noise`` does nothing, and ``width`` applies with ``wide`` alone."""
    chosen = {"depth": rng.choice([2, 4, 6]), "noise": rng.choice(["a", "b"]), "wide": rng.random() < 0.5}
    return chosen | ({"width": rng.choice([64, 128])} if chosen["wide"] else {})


def accuracy(chosen, rng):
    return 0.5 + 0.05 * chosen["depth"] + rng.uniform(-0.02, 0.02)


def metrics_of(chosen, value):
    size = chosen["depth"] * chosen.get("width", 32)
    return {"accuracy": value, "accuracy_ci95": 0.01, "params": 1000.0 * size, "flops": 1e6 * size}


def right(mean):
    """Correct queries per episode around a mean share, which vary alike for every model."""
    return [round(mean * QUERIES) + i % 3 - 1 for i in range(EPISODES)]


def planted(folder, trials=40, failing=3, seed=0, tested=True, rungs=False, **info):
    """Write the journal of a run and return the run.

    Args:
        folder: New folder.
        trials: Number of completed trials.
        failing: Number of failed ones.
        seed: Seed of the architectures.
        tested: Whether the search reached its end.
        rungs: Whether trials reported at rungs.
        info: Further values of the journal.
    """
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    config = {
        "tasks": {"source": "jsonl", "ways": 5, "shots": 1, "queries": 4}, "seed": 1,
        "objectives": [{"metric": "accuracy", "direction": "maximize"}, {"metric": "flops", "direction": "minimize"}],
        "watching": {"on_trial_end": ["my-private-hook"]},
        "resources": {"address": "my-cluster:1", "gpus_per_trial": 0},
    }  # fmt: skip
    data = {
        "meta-train": {f"topic {i}": (20, f"{i:x}") for i in range(8)},
        "meta-test": {HOSTILE: (20, "aa"), "topic 99": (25, "bb")},
    }
    fingerprint = {"data": data, "models": {}, "corpus": None}
    journal = Journal.create(
        folder, **{"config": config, "cpus": 2.0, "fingerprint": fingerprint, "seconds": 90.0, **info}
    )
    journal._db.execute(
        "PRAGMA synchronous=OFF"
    )  # nothing is lost if the test ends, and thousands of rows take no time
    rows = []
    for number in range(1, trials + 1):
        chosen = architecture(rng)
        rows.append(Trial(
            number, chosen, number, 8, "completed", metrics_of(chosen, accuracy(chosen, rng)), None, 100.0 * number,
            100.0 * number + 36, 8,
        ))  # fmt: skip
    for number in range(trials + 1, trials + failing + 1):
        error = f"it broke: {HOSTILE}"
        rows.append(Trial(number, architecture(rng), number, 3, "failed", {}, error, 1.0, 37.0, 8))
    for row in rows:
        journal.write(row)
        if rungs and row.metrics:
            scores = np.full(5, row.metrics["accuracy"] - 0.1)
            journal.report(RungReport(row.id, 2, (float(scores[0]), -row.metrics["flops"]), scores), True)
    if tested and trials:
        best = max((row for row in rows if row.metrics), key=lambda row: row.metrics["accuracy"])
        journal.set("comparisons", [{
            "name": "the first layers trained alike", "architecture": best.architecture | {"depth": 2, "noise": "a"},
            "seed": best.seed, "metrics": tested_metrics(0.7, 2e5, 2e8), "right": right(0.7),
        }])  # fmt: skip
        journal.set("report", report_of(best))
    journal.close()
    return load_run(folder)


def tested_metrics(mean, params=0.0, flops=0.0):
    return {"test_accuracy": mean, "test_accuracy_ci95": 0.02, "params": params, "flops": flops}


def report_of(best):
    """The meta-test: the winner beats the untouched model and the truncation, and TF-IDF beats the winner."""
    untouched, truncated, tfidf = (
        "unsearched model, no training",
        "the first layers trained alike",
        "TF-IDF, nearest centroid",
    )
    winner = tested_metrics(0.8, best.metrics["params"], best.metrics["flops"])
    return {
        "trials": {str(best.id): winner},
        "references": {untouched: tested_metrics(0.75, 1e6, 1e9), tfidf: tested_metrics(0.9)},
        "comparisons": {truncated: tested_metrics(0.7, 2e5, 2e8)},
        "unmeasured": {HOSTILE: "it ran out of memory"},
        "right": {
            "trials": {str(best.id): right(0.8)}, "references": {untouched: right(0.75), tfidf: right(0.9)},
            "comparisons": {truncated: right(0.7)},
        },
        "compared": best.id, "queries": QUERIES, "latency": None,
    }  # fmt: skip
