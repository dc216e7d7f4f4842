"""Heads that are fitted after the training, and distances of evaluation, on four of MiniLM's layers.

5-way 1-shot and 5-shot episodes with 5 queries per class, on ICD-10-CM and, if it lies beside this checkout, on
BANKING77; untouched, and meta-trained with the default recipe. All heads of a cell share one trained model. Results are
stored in ``benchmarks/heads.json``; delete a line there to measure it again.

usage: python -m benchmarks.run heads
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.learners import BANKING, DATA
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
LAYERS = (0, 1, 3, 5)
SEEDS = (1, 2, 3)
STEPS, EPISODES, JUDGED = 40, 600, 200  # meta-training steps, meta-test episodes, episodes that a choice is judged on
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "`none`": {},
    "`whitening`": {"head": "whitening"},
    "`linear`": {"head": "linear"},
    "`auto`": {"head": "auto"},
    "`none`, Euclidean": {"evaluation_distance": "euclidean"},
    "`none`, distance `auto`": {"evaluation_distance": "auto"},
    "`auto`, distance `auto`": {"head": "auto", "evaluation_distance": "auto"},
}
CELLS = {
    f"{DATA[data]}, {shots} shot{'s' * (shots > 1)}, {'trained' if steps else 'untouched'}": (data, shots, steps)
    for steps in (0, STEPS)
    for data in DATA
    for shots in (1, 5)
}


class Cached:
    """An encoder that embeds every example once.

    Args:
        encoder: the trained encoder.
    """

    def __init__(self, encoder: Any):
        self._encoder, self._found, self.width, self.learned = encoder, {}, encoder.width, encoder.learned

    def eval(self) -> None:
        """Puts the encoder into evaluation mode."""
        self._encoder.eval()

    def embed(self, pool: Any, indices: np.ndarray, rows: int = 64) -> Any:
        """Embeddings of examples on the CPU, ``[N, D]``."""
        import torch

        if id(pool) not in self._found:
            with torch.inference_mode(False):  # so that it can be filled in and out of inference mode
                self._found[id(pool)] = torch.full((len(pool), self.width), float("nan"))
        found = self._found[id(pool)]
        missing = np.unique(indices[torch.isnan(found[indices, 0]).numpy()])
        if len(missing):
            with torch.no_grad():
                found[missing] = self._encoder.embed(pool, missing, rows).cpu()
        return found[indices]

    embed_once = embed


def with_layers(space: Any, layers: Sequence[int]) -> Any:
    """The architecture that keeps some of MiniLM's layers, each with the first value of every other choice.

    Args:
        space: a prepared ``bert-subnet``.
        layers: the layers to keep.
    """
    first = {choice: values.values[0] for choice, values in space.table.items()}
    return space.canonical({**first, **{f"layer{i}.keep": i in layers for i in range(6)}})


def measure_cell(name: str, seed: int) -> dict[str, Any]:
    """Accuracy on meta-test of every variant, and what was chosen, for one trained model.

    Args:
        name: a name in ``CELLS``.
        seed: seed of the training, of the heads and of the episodes.
    """
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.evaluation.trial import result_of
    from nas_meta.learners.protonet import ProtoNet
    from nas_meta.tasks.episodes import episodes

    data, shots, steps = CELLS[name]
    source: dict[str, Any] = {"source": "icd10"}
    if data == "banking77":
        files = {split: str(BANKING / f"{split}.jsonl") for split in ("train", "valid", "test")}
        source = {"source": "jsonl", "text": "sentence", **files}
    resolved = resolve(
        {
            "space": {"name": "bert-subnet", "heads": [1.0], "ffn": [1.0], "importance_episodes": 1},
            "tasks": {**source, "ways": 5, "shots": shots},
            "learner": {"name": "protonet", "distance": "cosine", "steps": steps, "lr": 5e-5},
            "evaluation": {"episodes": 2},
            "seed": seed,
        }
    )
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation.setup()
    architecture = with_layers(space, LAYERS)
    trained = result_of(evaluation.trial(architecture, seed, keep_above=0.0))
    encoder = Cached(evaluation.restored(architecture, bytes(trained.weights)))
    test = list(episodes(tasks["meta-test"], shape, seed, EPISODES))
    found: dict[str, Any] = {}
    for variant, options in VARIANTS.items():
        learner = ProtoNet(resolved.options["learner"].model_copy(update=options))
        encoder.learned = learner.learned(encoder, shape.ways)
        learner.finish(encoder, tasks, shape, seed, JUDGED)
        head = getattr(encoder.learned, "head", None)
        accuracy = float(learner.accuracies(encoder, tasks["meta-test"], test).mean())
        found[variant] = [accuracy, head.name if head else "none", learner.form(encoder)]
    return found


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Mean accuracies over seeds; one row per cell, one column per variant."""
    rows = []
    for name in CELLS:
        runs = [results[key] for seed in SEEDS if (key := f"{name} {seed}") in results]
        if runs:
            rows.append([name, *(f"{100 * mean(run[variant][0] for run in runs):.1f}" for variant in VARIANTS)])
    losses = {key: run["`none`"][0] - run["`auto`"][0] for key, run in results.items()}
    worst = max(losses, key=lambda key: losses[key])
    lost = f"{100 * losses[worst]:.1f} points ({worst.rpartition(' ')[0]})" if losses[worst] > 0 else "nothing"
    return Table(
        ("meta-test, %", *VARIANTS),
        rows,
        f"Means over the seeds {', '.join(map(str, SEEDS))}, {EPISODES} episodes each. The models are trained with the "
        f"cosine, which also judges where no distance is named. The most that `auto` lost against `none` in one of the "
        f"{len(results)} runs is {lost}.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    names = [name for name, (data, _, _) in CELLS.items() if data == "icd10" or BANKING.is_dir()]
    return table(results_file.measure_missing(RESULTS, names, SEEDS, measure_cell))
