"""Zero-cost proxies against accuracy after training: how well each ranks 40 random architectures of a space.

Every architecture is trained for 60 steps and evaluated on 200 meta-validation episodes (5-way 1-shot on ICD-10-CM), as
a trial is. The benchmark reports Kendall's τ of each proxy with that accuracy and its 95% interval over bootstrap
samples of the architectures.

Results are stored in ``benchmarks/zero_cost.json``, including those of proxies that did not help and were removed from
nas-meta; delete a line there to measure it again.

usage: python -m benchmarks.run zero_cost
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.plain_training import SHARES
from benchmarks.random_architectures import sample_distinct
from benchmarks.table import Table
from benchmarks.timed_search import evaluation_of

RESULTS = Path(__file__).with_suffix(".json")
COUNT, SEED, BASELINE = 40, 1, "parameters"
COMMON = {"evaluation": {"episodes": 200, "test_best": 0}}
SPACES: dict[str, dict[str, Any]] = {
    "bert-subnet": {
        "space": {"name": "bert-subnet", **SHARES},
        "learner": {"name": "protonet", "steps": 60},
        **COMMON,
    },
    "encoder": {
        "space": {"name": "encoder"},
        "learner": {"name": "protonet", "steps": 60, "lr": 5e-4, "train_embeddings": True},
        **COMMON,
    },
}


@cache
def evaluation(space: str) -> Any:
    """Evaluation for a name in ``SPACES``."""
    return evaluation_of(SPACES[space])


def architectures(space: Any) -> list[Any]:
    """The random architectures to be ranked, the same in every call."""
    return sample_distinct(space, COUNT, 11)


def trained(space: str, number: int) -> dict[str, Any]:
    """Trains one architecture as a trial.

    Args:
        space: a name in ``SPACES``.
        number: index of the architecture.

    Returns:
        Id, accuracy, size and CPU seconds of the architecture.
    """
    from nas_meta.evaluation.trial import result_of

    evaluator = evaluation(space)
    architecture = architectures(evaluator.space)[number]
    started = time.process_time()
    metrics = result_of(evaluator.trial(architecture, SEED)).metrics
    names = ("accuracy", "accuracy_ci95", "params", "flops")
    return {"id": architecture.id, **{k: metrics[k] for k in names}, "seconds": time.process_time() - started}


def proxies(space: str, number: int, known: dict[str, float]) -> dict[str, float]:
    """Computes the zero-cost proxies of one architecture that are not known yet.

    Args:
        space: a name in ``SPACES``.
        number: index of the architecture.
        known: stored values by name of the proxy.

    Returns:
        Known and new values.
    """
    from nas_meta.evaluation.proxies import PROXIES
    from nas_meta.evaluation.proxies.scoring import proxy_scores

    missing = [name for name in PROXIES if name not in known]
    if not missing:
        return known
    evaluator = evaluation(space)
    return known | proxy_scores(evaluator, architectures(evaluator.space)[number], missing, SEED)


def tau_difference(proxy: list[float], baseline: list[float], accuracies: list[float]) -> str:
    """Difference between two proxies in Kendall's τ with the accuracies, as text.

    The 95% interval is a paired bootstrap: each sample of the architectures is used for both proxies.
    """
    from scipy.stats import kendalltau

    def difference(rows: Any) -> float:
        truth = np.array(accuracies)[rows]
        taus = (np.nan_to_num(kendalltau(np.array(side)[rows], truth)[0]) for side in (proxy, baseline))
        return float(next(taus) - next(taus))

    rng = np.random.default_rng(0)
    low, high = np.percentile([difference(rng.integers(COUNT, size=COUNT)) for _ in range(1000)], [2.5, 97.5])
    return f"{difference(np.arange(COUNT)):+.2f} ({low:+.2f} to {high:+.2f})"


def table(results: dict[str, dict[str, Any]]) -> Table:
    """τ and its difference from the number of parameters, one row per proxy."""
    from nas_meta.evaluation.proxies import PROXIES
    from nas_meta.outputs.proxy_ranking import agreement

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
            row.append("" if name == BASELINE else tau_difference(columns[name][space], base, accuracies[space]))
        rows.append([*row, "baseline" if name == BASELINE else "kept" if name in PROXIES else "removed"])
    ranges = [f"{100 * min(a):.0f} to {100 * max(a):.0f} % in `{s}`" for s, a in accuracies.items()]
    header = [part for space in SPACES for part in (f"τ in `{space}`", "difference from baseline")]
    return Table(
        ("proxy", *header, ""),
        rows,
        f"Kendall's τ with the meta-validation accuracy of {COUNT} random architectures after 60 steps, with 95% "
        f"intervals over bootstrap samples of the architectures; accuracies range from {' and from '.join(ranges)}.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    results = results_file.read(RESULTS)
    for space in SPACES:
        for number in range(COUNT):
            key = f"{space} trained {number}"
            if key not in results:
                results[key] = trained(space, number)
                results_file.write(RESULTS, results)
            key = f"{space} scores {number}"
            found = proxies(space, number, results.get(key, {}))
            if found != results.get(key):
                results[key] = found
                results_file.write(RESULTS, results)
    return table(results)
