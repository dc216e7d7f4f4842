"""Gain from pre-training a small encoder from scratch at equal total cost, and a model cut from a pretrained one.

5-way 1-shot episodes of ICD-10-CM, on one core. Every candidate has the same CPU time, divided equally among its
stages: masked words (MLM) and few-shot tasks of masked words (SMLMT) on the default corpus, and meta-training on
episodes of the meta-train classes. A candidate with fewer stages meta-trains longer. It is then evaluated on 600
episodes of the meta-test classes.

Results are stored in ``benchmarks/pretraining.json``; delete a line there to measure it again.

usage: python -m benchmarks.run pretraining
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.plain_training import SHARES, plain
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
BUDGET = 60.0  # CPU seconds of a candidate once it is built
SEEDS = (1, 2, 3)
ENDLESS = 1_000_000  # steps; the time budget ends training
ENCODER = {
    "name": "encoder", "depth": [2], "hidden": [128], "heads": [4], "ffn": [2.0], "activation": ["gelu"],
    "norm": ["layer"], "norm_place": ["pre"], "positions": ["learned"], "attention": ["full"], "pooling": [],
}  # fmt: skip
SCRATCH = {"space": ENCODER, "learner": {"name": "protonet", "steps": ENDLESS, "lr": 5e-4, "train_embeddings": True}}
PRETRAINED = {
    "space": {"name": "bert-subnet", "model": "starter:minilm", "min_layers": 2, "max_layers": 2, **SHARES},
    "learner": {"name": "protonet", "steps": ENDLESS, "lr": 2e-5},
}
META = "meta-training"
CANDIDATES: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "`encoder`, meta-trained alone": (SCRATCH, (META,)),
    "`encoder`, MLM first": (SCRATCH, ("mlm", META)),
    "`encoder`, SMLMT first": (SCRATCH, ("smlmt", META)),
    "`encoder`, MLM, then SMLMT": (SCRATCH, ("mlm", "smlmt", META)),
    "`bert-subnet`, two layers of MiniLM": (PRETRAINED, (META,)),
}


def measure_candidate(name: str, seed: int) -> dict[str, Any]:
    """Builds, trains and evaluates one candidate.

    Args:
        name: a name in ``CANDIDATES``.
        seed: seed of the architecture, its weights and its training.

    Returns:
        Meta-test accuracy, number of parameters, CPU seconds, and steps of every stage.
    """
    import torch

    from nas_meta.config.components import make_evaluation
    from nas_meta.config.pretraining import read_corpus
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.models.profiling import parameters
    from nas_meta.tasks.corpus.token_store import tokenise_corpus
    from nas_meta.tasks.episodes import episode
    from nas_meta.tasks.tokenization import load_tokenizer

    document, stages = CANDIDATES[name]
    resolved = resolve(plain({**document, "seed": seed, "pretraining": {}}))
    space, tasks, shape = load_problem(resolved)
    corpus = tokenise_corpus(read_corpus(resolved), load_tokenizer(space.tokenizer))
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation.setup()
    torch.manual_seed(seed)
    model = space.build(space.sample(np.random.default_rng(seed)))
    pool, steps, started = tasks["meta-train"], {}, time.process_time()
    for number, stage in enumerate(stages, start=1):
        if stage == META:
            encoder = evaluation.encoder(model)
            running = evaluation.learner.meta_train(encoder, pool, lambda i: episode(pool, shape, seed, i))
        else:
            running = pretraining_progress(model, corpus, stage, seed)
        steps[stage] = last_step(running, started + BUDGET * number / len(stages))
    spent = time.process_time() - started
    found = evaluation.accuracies(encoder, "meta-test", evaluation.settings.test_episodes)
    return {"accuracy": float(found.mean()), "params": parameters(model), "seconds": spent, "steps": steps}


def pretraining_progress(model: Any, corpus: Any, objective: str, seed: int) -> Iterator[Any]:
    """Progress of pre-training with default options, at a constant learning rate."""
    from nas_meta.evaluation.pretraining.loop import make_loss, pretrain
    from nas_meta.evaluation.pretraining.options import PretrainingSection

    section = PretrainingSection(objective=objective, steps=ENDLESS, warmup=0, decay="none", block=64)
    return pretrain(model, make_loss(model, corpus, section, "mean"), corpus, section, seed)


def last_step(running: Iterable[Any], until: float) -> int:
    """Runs training until a time.

    Args:
        running: progress of pre-training or meta-training.
        until: value of ``time.process_time()`` at which to stop.

    Returns:
        Number of the last step reported before that time.
    """
    step = 0
    for progress in itertools.takewhile(lambda _: time.process_time() < until, running):
        step = getattr(progress, "number", None) or progress.step
    return step


def table(results: dict[str, dict[str, Any]]) -> Table:
    """Parameters, accuracy and steps, one row per candidate."""
    rows = []
    for name in CANDIDATES:
        found = [results[key] for seed in SEEDS if (key := f"{name} {seed}") in results]
        if not found:
            continue
        steps = {s: [round(f["steps"][s]) for f in found] for s in found[0]["steps"]}
        mean_steps = ", ".join(f"{sum(n) / len(n):,.0f} of {stage}" for stage, n in steps.items())
        rows.append(
            [
                name,
                f"{found[0]['params'] / 1e6:.1f} M",
                results_file.mean_and_interval([100 * f["accuracy"] for f in found], 1),
                mean_steps,
            ]
        )
    return Table(
        ("candidate", "parameters", "meta-test, %", "mean steps in that time"),
        rows,
        f"Mean accuracy over seeds {', '.join(map(str, SEEDS))} with its 95% interval by Student's t. Each candidate "
        f"has {BUDGET:.0f} seconds of one core in total, divided equally among its stages.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    return table(results_file.measure_missing(RESULTS, CANDIDATES, SEEDS, measure_candidate))
