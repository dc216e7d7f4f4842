"""Cost of a trial, compared with the plain program that a user would write instead.

Both keep layers 0, 2 and 5 of MiniLM, meta-train for 60 steps on 5-way 1-shot episodes of ICD-10-CM and evaluate 200
episodes of the same meta-test classes, each in one process with the same number of threads. Runs alternate; times are
medians over seeds.

usage: python -m benchmarks.run trial_cost
       python -m benchmarks.trial_cost SEED [PART]   (one trial without a part of WITHOUT, as JSON)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.plain_training import plain
from benchmarks.table import Table

BASELINE = Path(__file__).parents[2] / "shared" / "baselines" / "naive_protonet.py"
LAYERS = (0, 2, 5)
SEEDS = (1, 2, 3)

# Ablations: nas-meta without one of the ways in which it saves time.
WITHOUT = {
    "with batches grouped by length instead of packing": "packing",
    "padding every batch to its longest text": "length",
    "training the token embeddings too": "embeddings",
    "embedding validation texts separately for every episode": "distinct",
}


def threads() -> int:
    """Number of threads that both programs use: one per available core."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nas_meta_trial(seed: int, without: str = "") -> dict[str, Any]:
    """Runs one nas-meta trial in this process.

    Args:
        seed: seed of the trial.
        without: the saving to switch off, a value of ``WITHOUT``; by default none.

    Returns:
        Meta-test accuracy with its interval, and the seconds of training and evaluation.
    """
    import torch

    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.evaluation.trial import result_of
    from nas_meta.learners.base import Learner
    from nas_meta.models.encoder import Encoder
    from nas_meta.models.profiling import interval95

    document = {"learner": {"train_embeddings": without == "embeddings"}, "evaluation": {"episodes": 200}}
    resolved = resolve(plain(document))
    space, tasks, shape = load_problem(resolved)
    space._weights = {name: t.numpy() for name, t in space._full.state_dict().items()}
    evaluation = make_evaluation(resolved, space, tasks, shape, threads())
    evaluation.setup()
    sample = {name: choice.values[0] for name, choice in space.table.items()}
    architecture = space.canonical({**sample, **{f"layer{i}.keep": i in LAYERS for i in range(6)}})
    if without in ("packing", "length"):
        Encoder.packs_from = None
    if without == "length":
        embed = Encoder.embed
        Encoder.embed = lambda self, pool, indices, rows=10: embed(self, pool, indices, len(indices))
    if without == "distinct":
        type(evaluation.learner).accuracies = Learner.accuracies
    torch.manual_seed(seed)
    result = result_of(evaluation.trial(architecture, seed, keep_above=0.0))
    encoder = evaluation.restored(architecture, bytes(result.weights))
    scores = evaluation.accuracies(encoder, "meta-test", 200)
    m = result.metrics
    return {
        "accuracy": float(scores.mean()), "ci95": interval95(scores),
        "train_seconds": m["train_seconds"], "evaluation_seconds": m["evaluate_seconds"],
    }  # fmt: skip


def write_splits(folder: Path) -> None:
    """Writes the classes and texts of nas-meta's splits in the format that the plain program reads."""
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve

    _, tasks, _ = load_problem(resolve({}))
    for file, split in (("train", "meta-train"), ("valid", "meta-validation"), ("test", "meta-test")):
        pool = tasks[split]
        rows = ({"sentence": t, "label": pool.classes[c]} for t, c in zip(pool.texts, pool.labels, strict=True))
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_process(*arguments: str) -> dict[str, Any]:
    """Runs Python with these arguments in a separate process and parses its last line of output as JSON."""
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure() -> Table:
    """Times and accuracy, one row per program."""
    if not BASELINE.is_file():
        return Table(("skipped",), [["the plain program to compare with was not found beside this checkout"]])
    layers = ",".join(map(str, LAYERS))
    runs: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_splits(Path(folder))
        for seed in SEEDS:
            plain = run_process(str(BASELINE), folder, "--layers", layers, "--seed", str(seed))
            runs.setdefault("the plain program", []).append(plain)
            runs.setdefault("**nas-meta**", []).append(run_process("-m", __spec__.name, str(seed)))
            for name, part in WITHOUT.items():
                runs.setdefault(f"nas-meta {name}", []).append(run_process("-m", __spec__.name, str(seed), part))
    plain_time = median(r["train_seconds"] + r["evaluation_seconds"] for r in runs["the plain program"])
    rows = []
    for name, results in runs.items():
        train, score = (median(r[k] for r in results) for k in ("train_seconds", "evaluation_seconds"))
        total = median(r["train_seconds"] + r["evaluation_seconds"] for r in results)
        rows.append([
            name, f"{train:.1f} s", f"{score:.1f} s", f"{total:.1f} s", f"{total / plain_time:.2f}",
            f"{100 * mean(r['accuracy'] for r in results):.1f} ± {100 * mean(r['ci95'] for r in results):.1f} %",
        ])  # fmt: skip
    return Table(
        ("program", "60 steps", "200 episodes", "trial", "share of the plain program's time", "accuracy"),
        rows,
        f"MiniLM's layers {layers} on ICD-10-CM, 5-way 1-shot, {threads()} threads. Times are medians over seeds "
        f"{', '.join(map(str, SEEDS))}; accuracy is the mean over these seeds with the mean 95% interval over episodes "
        "of the meta-test classes.",
    )


if __name__ == "__main__":
    print(json.dumps(nas_meta_trial(int(sys.argv[1]), *sys.argv[2:])))
