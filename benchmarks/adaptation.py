"""Effect of domain adaptation, further pre-training on unlabelled text, on the sub-networks cut from a model.

MiniLM, which was trained to embed sentences, is trained for 100 more steps on the default corpus with each objective
(``pretraining.of: model``). Four random sub-networks with half of its layers, the same for every objective, are then
meta-trained for 60 steps (5-way 1-shot on ICD-10-CM) and evaluated on 200 meta-validation episodes, the best of them on
600 meta-test episodes.

Results are stored in ``benchmarks/adaptation.json``; delete a line there to measure it again.

usage: python -m benchmarks.run adaptation
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import results_file
from benchmarks.plain_training import plain
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
SEEDS = (1, 2, 3)
UNADAPTED = "as it is"
OBJECTIVES: Mapping[str, Mapping[str, Any] | None] = {
    UNADAPTED: None,
    "`mlm`": {"objective": "mlm"},
    "`mlm`, a tenth of the rate": {"objective": "mlm", "lr": 5e-6},
    "`simcse`": {"objective": "simcse"},
    "`smlmt`": {"objective": "smlmt"},
}
DOCUMENT: Mapping[str, Any] = {
    "space": {"name": "bert-subnet", "min_layers": 3, "max_layers": 3, "heads": [1.0], "ffn": [1.0]},
    "strategy": {"name": "random"},
    "learner": {"name": "protonet", "steps": 60},
    "evaluation": {"episodes": 200, "test_episodes": 600, "test_best": 1},
    "budget": {"trials": 4},
    "resources": {"cpus_per_trial": 1},
}


def measure_search(objective: str, seed: int) -> dict[str, Any]:
    """Adapts the model with one objective and runs a search among its sub-networks.

    Args:
        objective: a name in ``OBJECTIVES``.
        seed: seed of adaptation and search; the sub-networks depend on it alone.

    Returns:
        Meta-validation accuracies of the sub-networks in order, and the meta-test accuracy of the best.
    """
    import nas_meta

    section = OBJECTIVES[objective]
    document = plain({**DOCUMENT, "seed": seed})
    if section is not None:
        document["pretraining"] = {"of": "model", "steps": 100, "batch": 16, "block": 64, **section}
    with tempfile.TemporaryDirectory() as folder:
        nas_meta.search(document, Path(folder) / "run", inline=True)
        run = nas_meta.load_run(Path(folder) / "run")
        return {
            "accuracies": [trial.metrics["accuracy"] for trial in sorted(run.trials, key=lambda t: t.id)],
            "tested": run.test_of(run.best)["test_accuracy"],
        }


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Accuracies and paired differences, one row per objective."""

    def runs_of(objective: str) -> list[dict[str, Any]]:
        return [results[f"{objective} {seed}"] for seed in SEEDS]

    def accuracies(objective: str) -> list[float]:
        return [100 * accuracy for found in runs_of(objective) for accuracy in found["accuracies"]]

    rows = []
    for objective in OBJECTIVES:
        gains = [a - b for a, b in zip(accuracies(objective), accuracies(UNADAPTED), strict=True)]
        rows.append(
            [
                objective,
                results_file.mean_and_interval(accuracies(objective), 1),
                "" if objective == UNADAPTED else results_file.mean_and_interval(gains, 1),
                results_file.mean_and_interval([100 * found["tested"] for found in runs_of(objective)], 1),
            ]
        )
    return Table(
        ("MiniLM", "meta-validation, %", "difference, points", "best of four on meta-test, %"),
        rows,
        f"Means over the twelve sub-networks of seeds {', '.join(map(str, SEEDS))} and paired differences, both with "
        "95% intervals by Student's t.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    return table(results_file.measure_missing(RESULTS, OBJECTIVES, SEEDS, measure_search))
