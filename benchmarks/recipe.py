"""What each part of the meta-training is worth on one sub-network, MiniLM's layers 0, 1, 3 and 5.

The default training of pretrained models (prototypical networks with the cosine, 20 classes and 2 queries per episode,
warm-up and cosine decay, learning rate 5e-5, 80 steps) with one part changed at a time. The model is evaluated on 600
5-way episodes of the meta-test classes with 1 and with 5 examples per class, each with the head that ``auto`` chooses,
on ICD-10-CM and, if they lie beside this checkout, on BANKING77 and CLINC150 (whose splits are whole domains). Results
are stored in ``benchmarks/recipe.json``; delete a line there to measure it again.

usage: python -m benchmarks.run recipe
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import results_file
from benchmarks.heads import LAYERS, Cached, with_layers
from benchmarks.learners import BANKING
from benchmarks.table import Table
from benchmarks.timed_search import evaluation_of

RESULTS = Path(__file__).with_suffix(".json")
CLINC = BANKING.parent / "clinc150-oos"
DATA = {"ICD-10-CM": None, "BANKING77": BANKING, "CLINC150": CLINC}
DOMAINS = (5, 2)  # of CLINC150's ten domains, in alphabetical order: meta-train, meta-validation; the rest is meta-test
SEEDS = (1, 2, 3)
EPISODES, JUDGED = 600, 200  # meta-test episodes; meta-validation episodes on which the head is chosen
STEPS = 80
COLUMNS = ("changed", *DATA, "gain, 1 shot", "gain, 5 shots", "trial")
RECIPE = "the recipe"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    RECIPE: {},
    "no training": {"learner": {"steps": 0}},
    "5 classes, 5 queries per episode": {"tasks": {"train_ways": None, "train_queries": None}},
    "constant learning rate": {"training": {"warmup": 0.0, "decay": "none"}},
    "learning rate 2e-5": {"learner": {"lr": 2e-5}},
    "learning rate 1e-4": {"learner": {"lr": 1e-4}},
    "Euclidean distance": {"learner": {"distance": "euclidean"}},
    "no head": {"learner": {"head": "none"}},
    "`word_dropout: 0.1`": {"training": {"word_dropout": 0.1}},
    "`distill: 1`": {"training": {"distill": 1.0}},
    "`distill: {model: starter:mpnet}`": {"training": {"distill": {"model": "starter:mpnet", "weight": 1.0}}},
    "`distill: {model: starter:mpnet, weight: 30}`": {
        "training": {"distill": {"model": "starter:mpnet", "weight": 30.0}}
    },
    "`distill: {model: starter:mpnet, weight: 300}`": {
        "training": {"distill": {"model": "starter:mpnet", "weight": 300.0}}
    },
    "`distill: {trained: true, weight: 10}`": {"training": {"distill": {"trained": True, "weight": 10.0}}},
    "`distill: {trained: true, weight: 10}`, 300 steps": {
        "learner": {"steps": 300}, "training": {"distill": {"trained": True, "weight": 10.0}}
    },
    "`meta_batch: 4`": {"learner": {"meta_batch": 4}},
    "160 steps": {"learner": {"steps": 160}},
    "300 steps": {"learner": {"steps": 300}},
    "1,000 steps": {"learner": {"steps": 1000}},
    "`class_names: true`": {"tasks": {"class_names": True}},
    "`class_names: true`, no training": {"tasks": {"class_names": True}, "learner": {"steps": 0}},
}  # fmt: skip
REMOVED = (
    "`average_last: 20`, since removed",
    "`mixup: 0.2`, since removed",
)  # measured, but no longer part of nas-meta


def source_of(data: str, folder: Path) -> dict[str, Any]:
    """Options of the task source of a data set.

    Args:
        data: a name in ``DATA``.
        folder: where files are written that a source reads.
    """
    if data == "ICD-10-CM":
        return {"source": "icd10"}
    if data == "BANKING77":
        files = {split: str(BANKING / f"{split}.jsonl") for split in ("train", "valid", "test")}
        return {"source": "jsonl", "text": "sentence", **files}
    texts = json.loads((CLINC / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((CLINC / "domains.json").read_text(encoding="utf-8"))
    names = sorted(domains)
    first, second = DOMAINS[0], sum(DOMAINS)
    files = {}
    for split, members in (("train", names[:first]), ("valid", names[first:second]), ("test", names[second:])):
        classes = {name for domain in members for name in domains[domain]}
        rows = [
            json.dumps({"text": text, "label": label})
            for part in ("train", "val", "test")
            for text, label in texts[part]
            if label in classes
        ]
        files[split] = str(folder / f"{split}.jsonl")
        Path(files[split]).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return {"source": "jsonl", **files}


def measure_cell(name: str, seed: int) -> dict[str, Any]:
    """Meta-test accuracies of one variant on one data set.

    Args:
        name: ``"DATA: VARIANT"``.
        seed: seed of the training, of the head and of the episodes.
    """
    data, _, variant = name.partition(": ")
    space = {"name": "bert-subnet", "heads": [1.0], "ffn": [1.0], "importance_episodes": 1}
    learner = {"distance": "cosine", "steps": STEPS, "lr": 5e-5}
    evaluation = evaluation_on(data, space, learner, VARIANTS[variant], seed)
    return trained_and_tested(evaluation, with_layers(evaluation.space, LAYERS), seed)


def evaluation_on(
    data: str, space: Mapping[str, Any], learner: Mapping[str, Any], changed: Mapping[str, Any], seed: int
) -> Any:
    """Evaluation of prototypical networks on a data set, ready to run trials.

    Args:
        data: a name in ``DATA``.
        space: the section ``space`` of the config.
        learner: options of the learner.
        changed: options that replace others, by ``tasks``, ``learner`` and ``training``.
        seed: seed of the config.
    """
    with tempfile.TemporaryDirectory() as folder:
        return evaluation_of(
            {
                "space": space,
                "tasks": {**source_of(data, Path(folder)), "ways": 5, "shots": 1, **changed.get("tasks", {})},
                "learner": {
                    "name": "protonet", **learner, **changed.get("learner", {}),
                    "training": dict(changed.get("training", {})),
                },
                "evaluation": {"episodes": 2},
                "seed": seed,
            }
        )  # fmt: skip


def cell_names(variants: Iterable[str]) -> list[str]:
    """Every variant on every data set that lies beside this checkout, as ``"DATA: VARIANT"``."""
    present = [data for data, folder in DATA.items() if folder is None or folder.is_dir()]
    return [f"{data}: {variant}" for variant in variants for data in present]


def trained_and_tested(evaluation: Any, architecture: Any, seed: int) -> dict[str, Any]:
    """Meta-trains an architecture and evaluates it on meta-test with one and with five examples per class.

    Args:
        evaluation: the evaluation of the config, ready to run trials.
        architecture: what is trained.
        seed: seed of the training, of the head and of the episodes.

    Returns:
        CPU seconds of the trial, and the accuracies by shots, ``"1"`` and ``"5"``.
    """
    from nas_meta.evaluation.trial import result_of

    started = time.process_time()
    trained = result_of(evaluation.trial(architecture, seed, keep_above=0.0))
    found: dict[str, Any] = {"seconds": round(time.process_time() - started, 1)}
    return found | tested(evaluation, evaluation.restored(architecture, bytes(trained.weights)), seed)


def tested(evaluation: Any, trained: Any, seed: int) -> dict[str, float]:
    """Accuracies of an encoder on meta-test with one and with five examples per class, by shots.

    Args:
        evaluation: the evaluation of the config.
        trained: the trained encoder.
        seed: seed of the head and of the episodes.
    """
    from nas_meta.tasks.episodes import EpisodeShape, episodes

    encoder, found = Cached(trained), {}
    learner, tasks, shape = evaluation.learner, evaluation.tasks, evaluation.shape
    for shots in (1, 5):
        judged = EpisodeShape(shape.ways, shots, shape.queries)
        encoder.learned = learner.learned(encoder, shape.ways)
        learner.finish(encoder, tasks, judged, seed, JUDGED)
        test = list(episodes(tasks["meta-test"], judged, seed, EPISODES))
        found[str(shots)] = float(learner.accuracies(encoder, tasks["meta-test"], test).mean())
    return found


def rows_of(results: Mapping[str, Mapping[str, Any]], variants: Iterable[str]) -> list[list[str]]:
    """Mean accuracies over seeds, one row per variant, and the gains over the recipe on the same data and seed.

    Args:
        results: accuracies and seconds by ``"DATA: VARIANT SEED"``.
        variants: the rows; those without results are left out.
    """
    rows = []
    for variant in variants:
        cells, gains, counts = [], {1: [], 5: []}, set()
        for data in DATA:
            seeds = [seed for seed in SEEDS if f"{data}: {variant} {seed}" in results]
            counts.add(len(seeds))
            runs = {seed: results[f"{data}: {variant} {seed}"] for seed in seeds}
            means = [sum(run[shots] for run in runs.values()) / len(runs) for shots in ("1", "5")] if runs else []
            cells.append(" / ".join(f"{100 * value:.1f}" for value in means) or "-")
            for seed, run in runs.items():
                if base := results.get(f"{data}: {RECIPE} {seed}"):
                    for shots, found in gains.items():
                        found.append(100 * (run[str(shots)] - base[str(shots)]))
        if counts == {0}:
            continue
        seeds = "/".join(map(str, sorted(counts)))
        note = "" if counts == {len(SEEDS)} else f" ({seeds} seed{'s' * (seeds != '1')})"
        gained = ["" if variant == RECIPE else results_file.mean_and_interval(found, 1) for found in gains.values()]
        seconds = [
            run["seconds"]
            for key, run in results.items()
            if key.partition(": ")[2][:-2] == variant and "seconds" in run  # not of those measured side by side
        ]
        rows.append([variant + note, *cells, *gained, f"{sum(seconds) / len(seconds):.0f} s" if seconds else ""])
    return rows


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """The table of the recipe."""
    return Table(
        COLUMNS,
        rows_of(results, [*VARIANTS, *REMOVED]),
        f"Meta-test accuracy in %, 1 shot / 5 shots, 5 ways; means over the seeds {', '.join(map(str, SEEDS))}, or the "
        f"first of them where a row says so, {EPISODES} episodes each. Gains are paired by data set and seed, in "
        "points, with 95% intervals by Student's t. Trial: CPU seconds on one core; rows without a training have the "
        "evaluation alone. Rows without a time and the last seeds of eight rows were measured on an NVIDIA H200, and "
        "most rows with seed 2 on a 16-core Xeon, both with torch 2.11.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    return table(results_file.measure_missing(RESULTS, cell_names(VARIANTS), SEEDS, measure_cell))
