"""Gain from distilling the full model's embeddings into sub-networks of one to six layers of MiniLM.

Prototypical networks on 5-way 1-shot episodes of ICD-10-CM, with 60 meta-training steps and 600 episodes of the
meta-test classes, once with ``learner.training.distill: 0`` and once with 1.

usage: python -m benchmarks.run distillation
"""

from __future__ import annotations

from statistics import mean

from benchmarks.plain_training import plain
from benchmarks.table import Table

SUBNETWORKS = ((0,), (0, 5), (0, 2, 5), (0, 1, 3, 5), (0, 1, 2, 3, 4, 5))
SEEDS = (1, 2, 3)
EPISODES = 600


def accuracies(distill: float) -> dict[tuple[int, ...], list[tuple[float, float]]]:
    """Meta-trains and evaluates every sub-network with every seed.

    Args:
        distill: weight of the distillation loss.

    Returns:
        For each sub-network, one pair per seed: meta-test accuracy and its 95% interval.
    """
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.evaluation.trial import result_of
    from nas_meta.models.profiling import interval95

    document = {"learner": {"name": "protonet", "training": {"distill": distill}}, "evaluation": {"episodes": 2}}
    resolved = resolve(plain(document))
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation.setup()
    full = {name: max(choice.values) for name, choice in space.table.items()}
    found = {}
    for layers in SUBNETWORKS:
        architecture = space.canonical({**full, **{f"layer{i}.keep": i in layers for i in range(6)}})
        found[layers] = []
        for seed in SEEDS:
            result = result_of(evaluation.trial(architecture, seed, keep_above=0.0))
            encoder = evaluation.restored(architecture, bytes(result.weights))
            scores = evaluation.accuracies(encoder, "meta-test", EPISODES)
            found[layers].append((float(scores.mean()), interval95(scores)))
    return found


def measure() -> Table:
    """Accuracy with and without distillation, one row per sub-network."""
    without, distilled = accuracies(0.0), accuracies(1.0)
    rows = []
    for layers in SUBNETWORKS:
        plain, student = ([100 * mean(v) for v in zip(*found[layers], strict=True)] for found in (without, distilled))
        rows.append([
            ", ".join(map(str, layers)), f"{plain[0]:.1f} ± {plain[1]:.1f} %", f"{student[0]:.1f} ± {student[1]:.1f} %",
            f"{student[0] - plain[0]:+.1f}",
        ])  # fmt: skip
    return Table(
        ("MiniLM's layers", "without", "`distill: 1`", "points gained"),
        rows,
        f"5-way 1-shot, {EPISODES} meta-test episodes; means over seeds {', '.join(map(str, SEEDS))} with the mean 95% "
        "interval over episodes.",
    )
