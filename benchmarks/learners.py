"""Every learner on the whole MiniLM: accuracy before and after the default meta-training, time and memory.

5-way 1-shot and 5-shot episodes with 5 queries per class, on ICD-10-CM and, if it lies beside this checkout, on
BANKING77; one core, in bf16. All learners are evaluated on the same 600 episodes of the meta-test classes; those that
move the whole body in every episode get only the first 100 (one shot) or 50 (five shots).

The benchmark takes many hours. Results are stored in ``benchmarks/learners.json``; delete a line there to measure it
again.

usage: python -m benchmarks.run learners
       python -m benchmarks.learners DATA SHOTS LEARNER SEED   (one cell, in this process, as JSON)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.table import Table, machine

BANKING = Path(__file__).parents[2] / "shared" / "data" / "banking77"
RESULTS = Path(__file__).with_suffix(".json")
LEARNERS: dict[str, dict[str, Any]] = {
    "protonet": {"name": "protonet"},
    "protonet, cosine": {"name": "protonet", "distance": "cosine"},
    "ridge": {"name": "ridge"},
    "matching": {"name": "matching"},
    "matching, full context": {"name": "matching", "full_context": True},
    "mann": {"name": "mann"},
    "anil": {"name": "anil"},
    "finetune, head": {"name": "finetune", "adapt": "head"},
    "prototype-maml": {"name": "prototype-maml"},
    "maml": {"name": "maml"},
    "maml, first order": {"name": "maml", "first_order": True},
    "meta-sgd": {"name": "meta-sgd"},
    "finetune": {"name": "finetune"},
    "reptile": {"name": "reptile"},
}
QUICK = list(LEARNERS)[:8]  # learners that move no weight of the body on a support set
SEEDS = (1,)
EPISODES, JUDGED = 600, 200  # of meta-test, and of meta-validation to choose a head on
EPISODES_WHEN_SLOW = {1: 100, 5: 50}  # by shots, for learners that move the whole body: 600 would take days
DATA = {"icd10": "ICD-10-CM", "banking77": "BANKING77"}


@dataclass(frozen=True)
class Cell:
    """One learner on one kind of episode.

    Attributes:
        data: a name in ``DATA``.
        shots: support examples per class.
        learner: a name in ``LEARNERS``.
        seed: seed of the trial; 0 for the model before meta-training.
    """

    data: str
    shots: int
    learner: str
    seed: int


@dataclass(frozen=True)
class Measured:
    """Result of a cell.

    Attributes:
        accuracy: mean accuracy over episodes.
        interval: its 95% interval.
        episodes: number of episodes.
        train_seconds: CPU seconds of the trial with its meta-training.
        score_seconds: CPU seconds of all episodes.
        peak_memory: peak memory of the process in bytes.
    """

    accuracy: float
    interval: float
    episodes: int
    train_seconds: float
    score_seconds: float
    peak_memory: float


def cells() -> Iterator[Cell]:
    """Every cell, in the order of measurement: quick learners before slow ones."""
    for learners in (QUICK, [name for name in LEARNERS if name not in QUICK]):
        for source, shots in (("icd10", 1), ("banking77", 1), ("icd10", 5), ("banking77", 5)):
            if source == "icd10" or BANKING.is_dir():
                yield from (Cell(source, shots, name, seed) for seed in (*SEEDS, 0) for name in learners)


def measure_cell(cell: Cell) -> Measured:
    """Meta-trains and evaluates one learner in this process; with seed 0, only evaluates it."""
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.evaluation.trial import result_of
    from nas_meta.models.profiling import interval95

    source = {"source": "icd10"}
    if cell.data == "banking77":
        files = {split: str(BANKING / f"{split}.jsonl") for split in ("train", "valid", "test")}
        source = {"source": "jsonl", "text": "sentence", **files}
    quick = cell.learner in QUICK
    resolved = resolve(
        {
            "tasks": {**source, "shots": cell.shots},
            "learner": LEARNERS[cell.learner] | ({} if cell.seed else {"steps": 0}),
            "evaluation": {"episodes": JUDGED if quick else 2},
            "compute": {"precision": "bf16"},
        }
    )
    space, tasks, shape = load_problem(resolved)
    space._weights = {name: t.numpy() for name, t in space._full.state_dict().items()}
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation.setup()
    architecture = space.canonical({name: max(choice.values) for name, choice in space.table.items()})
    started = time.process_time()
    result = result_of(evaluation.trial(architecture, cell.seed, keep_above=0.0))
    trained = time.process_time()
    encoder = evaluation.restored(architecture, bytes(result.weights))
    episodes = EPISODES if quick else EPISODES_WHEN_SLOW[cell.shots]
    restored = time.process_time()
    scores = evaluation.accuracies(encoder, "meta-test", episodes)
    return Measured(
        float(scores.mean()), interval95(scores), episodes,
        trained - started, time.process_time() - restored, result.metrics["peak_memory"],
    )  # fmt: skip


def measure_in_process(cell: Cell) -> Measured:
    """Runs :func:`measure_cell` in a separate process, so that peak memory is that of the cell alone."""
    arguments = [sys.executable, "-m", __spec__.name if __spec__ else __name__, *map(str, asdict(cell).values())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def read_results() -> dict[Cell, Measured]:
    """Stored results; empty if the file does not exist."""
    if not RESULTS.is_file():
        return {}
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["cells"]
    return {Cell(**row["cell"]): Measured(**row["measured"]) for row in rows}


def write_results(results: dict[Cell, Measured]) -> None:
    """Writes all results, one cell per line."""
    rows = ",\n".join(json.dumps({"cell": asdict(c), "measured": asdict(m)}) for c, m in results.items())
    RESULTS.write_text(f'{{"machine": {json.dumps(machine())}, "cells": [\n{rows}\n]}}\n', encoding="utf-8")


def accuracies(results: dict[Cell, Measured], data: str, shots: int, learner: str) -> str:
    """A table cell: accuracy before → after ± interval, over the measured seeds.

    The cell names the number of seeds or episodes where there are fewer than usual. It is "-" if nothing is measured,
    and "?" stands for a missing accuracy before meta-training.
    """
    before = results.get(Cell(data, shots, learner, 0))
    after = [results[c] for seed in SEEDS if (c := Cell(data, shots, learner, seed)) in results]
    if not after:
        return "-"
    start = f"{100 * before.accuracy:.1f}" if before else "?"
    text = f"{start} → {100 * mean(m.accuracy for m in after):.1f} ± {100 * mean(m.interval for m in after):.1f}"
    short = [f"{len(after)} seed{'s' * (len(after) > 1)}"] * (len(after) < len(SEEDS))
    short += [f"{after[0].episodes} episodes"] * (after[0].episodes < EPISODES)
    return text + (f" ({', '.join(short)})" if short else "")


def table(results: dict[Cell, Measured]) -> Table:
    """Accuracy, time and memory, one row per learner."""
    kinds = [(data, shots) for data in DATA for shots in (1, 5)]
    rows = []
    for learner in LEARNERS:
        row = [f"`{learner}`", *(accuracies(results, *kind, learner) for kind in kinds)]
        one, five = (results.get(Cell("icd10", shots, learner, 1)) for shots in (1, 5))
        train, score, memory = (
            " / ".join(shown(m) if m else "-" for m in (one, five))
            for shown in (
                lambda m: f"{m.train_seconds:.0f}",
                lambda m: f"{1000 * m.score_seconds / m.episodes:.0f}",
                lambda m: f"{m.peak_memory / 2**30:.1f}",
            )
        )
        rows.append([*row, train, score, memory])
    return Table(
        ("learner", *(f"{DATA[data]}, {shots} shot{'s' * (shots > 1)}" for data, shots in kinds),
         "meta-training, s", "episode, ms", "memory, GiB"),
        rows,
        f"Accuracy in %, before → after meta-training with default options, 5 ways, {EPISODES} episodes of the "
        "meta-test classes unless a cell states otherwise, seed 1, with the 95% interval over episodes. Times on one "
        "core and peak memory are those of ICD-10-CM with 1 shot / 5 shots, in bf16.",
    )  # fmt: skip


def measure() -> Table:
    """Measures the cells that the results file lacks and returns the table."""
    results = read_results()
    for cell in cells():
        if cell not in results:
            results[cell] = measure_in_process(cell)
            write_results(results)
    return table(results)


if __name__ == "__main__":
    data, shots, learner, seed = sys.argv[1:]
    print(json.dumps(asdict(measure_cell(Cell(data, int(shots), learner, int(seed))))))
