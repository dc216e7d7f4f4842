"""What training options are worth for a model from scratch: two layers of 256 that learn everything from episodes.

The default training of models from scratch (prototypical networks with Euclidean distance, 20 classes and 2 queries per
episode, warm-up and cosine decay, learning rate 5e-4, trained token embeddings, 500 steps) with one part changed at a
time. The model is evaluated as in ``benchmarks/recipe.py``, on the same data sets. Results are stored in
``benchmarks/scratch_recipe.json``; delete a line there to measure it again.

usage: python -m benchmarks.run scratch_recipe
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import results_file
from benchmarks.recipe import COLUMNS, EPISODES, RECIPE, cell_names, evaluation_on, rows_of, trained_and_tested
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
SEEDS = (1, 2, 3)
STEPS = 500
ARCHITECTURE: Mapping[str, Any] = {
    "depth": [2], "hidden": [256], "heads": [8], "ffn": [2.0], "activation": ["gelu"], "norm": ["layer"],
    "norm_place": ["pre"], "positions": ["learned"], "attention": ["full"], "pooling": ["mean"],
}  # fmt: skip
FEW_WAYS = {"train_ways": None, "train_queries": None}
CONSTANT = {"warmup": 0.0, "decay": "none"}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    RECIPE: {},
    "5 classes, 5 queries per episode": {"tasks": FEW_WAYS},
    "constant learning rate": {"training": CONSTANT},
    "no head": {"learner": {"head": "none"}},
    "all three": {"tasks": FEW_WAYS, "training": CONSTANT, "learner": {"head": "none"}},
    "`word_dropout: 0.1`": {"training": {"word_dropout": 0.1}},
    "`distill: {model: starter:minilm, weight: 30}`": {
        "training": {"distill": {"model": "starter:minilm", "weight": 30.0}}
    },
}
REMOVED = ("`average_last: 100`, since removed",)  # measured, but no longer part of nas-meta


def measure_cell(name: str, seed: int) -> dict[str, Any]:
    """Meta-test accuracies of one variant on one data set.

    Args:
        name: ``"DATA: VARIANT"``.
        seed: seed of the training and of the episodes.
    """
    data, _, variant = name.partition(": ")
    space = {"name": "encoder", "tokenizer": "starter:minilm", **ARCHITECTURE}
    evaluation = evaluation_on(data, space, {"steps": STEPS}, VARIANTS[variant], seed)
    choices = evaluation.space.table.items()
    architecture = evaluation.space.canonical({choice: values.values[0] for choice, values in choices})
    return trained_and_tested(evaluation, architecture, seed)


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """The table of the training options."""
    return Table(
        COLUMNS,
        rows_of(results, [*VARIANTS, *REMOVED]),
        f"Meta-test accuracy in %, 1 shot / 5 shots, 5 ways; means over the seeds {', '.join(map(str, SEEDS))}, "
        f"{EPISODES} episodes each. Gains are paired by data set and seed, in points, with 95% intervals by Student's "
        "t.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    return table(results_file.measure_missing(RESULTS, cell_names(VARIANTS), SEEDS, measure_cell))
