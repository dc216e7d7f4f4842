"""Zero-cost scores against the accuracy after training: how far each ranks 40 random architectures of a space.

5-way 1-shot on ICD-10-CM, every architecture trained for 60 steps and judged on 200 meta-validation episodes, as a
trial is; Kendall's τ of each score with that accuracy, and its 95% interval over bootstrap samples of the
architectures. What was measured is kept in ``benchmarks/zero_cost.json`` and not measured again, the scores that did
not help and are no longer there among it; delete a line to measure it anew.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.random_architectures import drawn
from benchmarks.table import Table
from benchmarks.timed_search import evaluation_of

KEPT = Path(__file__).with_suffix(".json")
COUNT, SEED, BASELINE = 40, 1, "parameters"
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
    return drawn(space, COUNT, 11)


def trained(space: str, number: int) -> dict[str, Any]:
    """One architecture trained as a trial is."""
    from nas_meta.evaluation import result_of

    of = evaluation(space)
    architecture = architectures(of.space)[number]
    started = time.process_time()
    metrics = result_of(of.trial(architecture, SEED)).metrics
    names = ("accuracy", "accuracy_ci95", "params", "flops")
    return {"id": architecture.id, **{k: metrics[k] for k in names}, "seconds": time.process_time() - started}


def scores(space: str, number: int, known: dict[str, float]) -> dict[str, float]:
    """Every score of one architecture; what is known is not computed again."""
    from nas_meta.scores import SCORES
    from nas_meta.scores.sample import scored

    missing = [name for name in SCORES if name not in known]
    if not missing:
        return known
    of = evaluation(space)
    return known | scored(of, architectures(of.space)[number], missing, SEED)


def more(ours: list[float], theirs: list[float], accuracies: list[float]) -> str:
    """By how much our τ is higher than theirs, with its 95% interval over the same bootstrap samples for both."""
    from scipy.stats import kendalltau

    def difference(rows: Any) -> float:
        truth = np.array(accuracies)[rows]
        ranked = (np.nan_to_num(kendalltau(np.array(side)[rows], truth)[0]) for side in (ours, theirs))
        return float(next(ranked) - next(ranked))

    rng = np.random.default_rng(0)
    low, high = np.percentile([difference(rng.integers(COUNT, size=COUNT)) for _ in range(1000)], [2.5, 97.5])
    return f"{difference(np.arange(COUNT)):+.2f} ({low:+.2f} to {high:+.2f})"


def table(results: dict[str, dict[str, Any]]) -> Table:
    from nas_meta.ranking import agreement
    from nas_meta.scores import SCORES

    accuracies = {s: [results[f"{s} trained {i}"]["accuracy"] for i in range(COUNT)] for s in SPACES}
    found = {s: [results[f"{s} scores {i}"] for i in range(COUNT)] for s in SPACES}
    names = list(found["bert-subnet"][0])
    columns = {n: {s: [row[n] for row in found[s]] for s in SPACES} for n in names}
    taus = {n: {s: agreement(columns[n][s], accuracies[s]) for s in SPACES} for n in names}
    rows = []
    for name in sorted(names, key=lambda n: (n != BASELINE, -sum(a.tau for a in taus[n].values()))):
        row = [f"`{name}`"]
        for space, a in taus[name].items():
            row.append(f"{a.tau:+.2f} ({a.low:+.2f} to {a.high:+.2f})")
            base = columns[BASELINE][space]
            row.append("" if name == BASELINE else more(columns[name][space], base, accuracies[space]))
        rows.append([*row, "the baseline" if name == BASELINE else "kept" if name in SCORES else "left out"])
    ranges = [f"{100 * min(a):.0f} to {100 * max(a):.0f} % in `{s}`" for s, a in accuracies.items()]
    header = [part for space in SPACES for part in (f"τ in `{space}`", "more than the baseline's")]
    return Table(
        ("score", *header, ""),
        rows,
        f"Kendall's τ with the meta-validation accuracy of {COUNT} random architectures after 60 steps, with 95% "
        f"intervals over bootstrap samples of the architectures; accuracies are {' and '.join(ranges)}.",
    )


def measure() -> Table:
    results = results_file.read(KEPT)
    for space in SPACES:
        for number in range(COUNT):
            key = f"{space} trained {number}"
            if key not in results:
                results[key] = trained(space, number)
                results_file.write(KEPT, results)
            key = f"{space} scores {number}"
            found = scores(space, number, results.get(key, {}))
            if found != results.get(key):
                results[key] = found
                results_file.write(KEPT, results)
    return table(results)
