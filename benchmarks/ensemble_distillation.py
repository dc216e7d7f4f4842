"""Is a student that learns from an ensemble better than the same student without a teacher?

Three sub-networks of MiniLM, of three layers each, are meta-trained alike. Their embeddings of the meta-train texts,
scaled to unit norm and joined, are the teacher: its cosines are the means of the members'. The student has the layers
of the first member and is trained as that member was, with the same seed, which is therefore the student without a
teacher. The data are 30 texts of at most 25 classes in each split of ICD-10-CM and, if it lies beside this checkout, of
BANKING77. Results are stored in ``benchmarks/ensemble_distillation.json``; delete a line there to measure it again.

usage: python -m benchmarks.run ensemble_distillation
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.heads import Cached, with_layers
from benchmarks.learners import BANKING, DATA
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
MEMBERS = ((0, 2, 5), (0, 1, 5), (0, 3, 5))  # the first has the layers of the student
WEIGHTS = (1.0, 30.0)  # of the distance to the teacher; the mean squared difference of cosines is about 0.01
PLAIN, ENSEMBLE = "no teacher", "the ensemble itself"
STUDENTS = tuple(f"`distill`, weight {weight:g}" for weight in WEIGHTS)
SEEDS = (1, 2)
STEPS, EPISODES, SHOTS = 80, 600, (1, 5)
MEASURES = ("accuracy", "calibration error", "AUROC")


def measure_cell(data: str, seed: int) -> dict[str, Any]:
    """Train members and students on one data set.

    Args:
        data: a name in ``DATA``.
        seed: seed of the trainings and of the episodes.

    Returns:
        For each model and number of shots: the accuracy on every episode, in queries that are classified correctly, the
        calibration error, and the AUROC of every open-set episode.
    """
    from benchmarks.ensembles import write_part
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.evaluation.trial import result_of

    with tempfile.TemporaryDirectory() as folder:
        source = {"source": "jsonl", **write_part(data, Path(folder))}
        resolved = resolve(
            {
                "space": {"name": "bert-subnet", "heads": [1.0], "ffn": [1.0], "importance_episodes": 1},
                "tasks": {**source, "ways": 5, "shots": 1},
                "learner": {"name": "protonet", "distance": "cosine", "steps": STEPS, "head": "none"},
                "evaluation": {"episodes": 2},
                "seed": seed,
            }
        )
        space, tasks, shape = load_problem(resolved)
    plain = make_evaluation(resolved, space, tasks, shape, cpus=1)
    plain.setup()

    def trained(evaluation: Any, layers: Sequence[int]) -> Cached:
        architecture = with_layers(space, layers)
        weights = bytes(result_of(evaluation.trial(architecture, seed, keep_above=0.0)).weights)
        return Cached(evaluation.restored(architecture, weights))

    members = [trained(plain, layers) for layers in MEMBERS]
    pool = tasks["meta-train"]
    teacher = joined(members, pool)
    guided = replace(plain, tasks=replace(tasks, pools={**tasks.pools, "meta-train": replace(pool, teacher=teacher)}))
    models = {PLAIN: members[:1]}
    for name, weight in zip(STUDENTS, WEIGHTS, strict=True):
        training = plain.learner.options.training
        distill = training.distill.model_copy(update={"weight": weight})
        options = {"training": training.model_copy(update={"distill": distill})}
        learner = type(plain.learner)(plain.learner.options.model_copy(update=options))
        models[name] = [trained(replace(guided, learner=learner), MEMBERS[0])]
    models[ENSEMBLE] = members
    return {name: {str(k): judged(parts, plain, k) for k in SHOTS} for name, parts in models.items()}


def joined(members: Sequence[Cached], pool: Any) -> np.ndarray:
    """The embeddings of all examples ``[examples, members x D]``, of unit norm for every member.

    Args:
        members: the models.
        pool: the examples.
    """
    import torch.nn.functional as F

    every = np.arange(len(pool))
    for member in members:
        member.eval()
    return np.concatenate([F.normalize(member.embed(pool, every), dim=-1).numpy() for member in members], 1)


def judged(members: Sequence[Cached], evaluation: Any, shots: int) -> dict[str, Any]:
    """Judge one model, or several that average their calibrated probabilities.

    Args:
        members: the models.
        evaluation: the evaluation, with the tasks.
        shots: support examples per class.

    Returns:
        Queries that are classified correctly in every meta-test episode, the expected calibration error, and the AUROC
        of queries of other classes in every open-set episode.
    """
    import torch

    from nas_meta.evaluation.calibrate import best_temperature, calibration_error
    from nas_meta.evaluation.ensemble import SMALLEST
    from nas_meta.evaluation.open_set import EmbeddedSplit, embedded, open_tasks, scores_of
    from nas_meta.evaluation.task_logits import query_logits, tasks_of
    from nas_meta.learners.open_set import auroc

    evaluation = replace(evaluation, shape=replace(evaluation.shape, shots=shots))
    valid, test = (tasks_of(evaluation, split, EPISODES) for split in ("meta-validation", "meta-test"))
    targets = [torch.from_numpy(np.concatenate([task.labels for task in tasks])) for tasks in (valid, test)]
    probabilities, splits = [], []
    for member in members:
        logits = [
            torch.from_numpy(query_logits(evaluation, member, split, tasks)).double()
            for split, tasks in (("meta-validation", valid), ("meta-test", test))
        ]
        probabilities.append((logits[1] / best_temperature(logits[0], targets[0])).softmax(1))
        splits.append(embedded(evaluation, member, "meta-test"))
    mean = torch.stack(probabilities).mean(0)
    units = [torch.nn.functional.normalize(split.z, dim=-1) for split in splits]
    together = EmbeddedSplit(splits[0].pool, torch.cat(units, 1))
    parts = [scores_of(together, task) for task in open_tasks(together, evaluation.shape, evaluation.settings.seed)]
    right = (mean.argmax(1) == targets[1]).numpy().reshape(len(test), -1).sum(1)
    return {
        "right": right.tolist(),
        "queries": len(targets[1]) // len(test),
        "calibration error": calibration_error(mean.clamp(min=SMALLEST).log(), targets[1]),
        "AUROC": [round(float(auroc(inside, outside)), 4) for _, inside, outside in parts],
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Accuracy, calibration error and AUROC, and paired gains over the student without a teacher."""
    rows = []
    for data in DATA:
        runs = [results[key] for seed in SEEDS if (key := f"{data} {seed}") in results]
        for shots in map(str, SHOTS) if runs else ():
            for name in (PLAIN, *STUDENTS, ENSEMBLE):
                rows.append([DATA[data], shots, name, *cells([run[name][shots] for run in runs],
                             [run[PLAIN][shots] for run in runs])])  # fmt: skip
    return Table(
        ("data", "shots", "student", "accuracy, %", "gain", "calibration error", "AUROC", "gain"),
        rows,
        f"5 ways, {EPISODES} meta-test episodes and 100 open-set episodes per seed, the same for all rows of a data "
        f"set; seeds {', '.join(map(str, SEEDS))}. Gains in points over the student without a teacher, paired over the "
        "episodes of all seeds, with 95% intervals.",
    )


def cells(found: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]) -> list[str]:
    """Text cells of one model.

    Args:
        found: what :func:`judged` returned for each seed.
        plain: the same for the student without a teacher.
    """
    from nas_meta.models.profiling import interval95

    def of(runs: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        return [
            np.concatenate([100 * np.array(run["right"]) / run["queries"] for run in runs]),
            np.concatenate([100 * np.array(run["AUROC"]) for run in runs]),
        ]

    (accuracy, area), base = of(found), of(plain)
    gains = [values - others for values, others in zip((accuracy, area), base, strict=True)]
    shown = ["" if found == plain else f"{gain.mean():+.2f} ± {interval95(gain):.2f}" for gain in gains]
    error = np.mean([run["calibration error"] for run in found])
    return [f"{accuracy.mean():.2f}", shown[0], f"{error:.3f}", f"{area.mean() / 100:.3f}", shown[1]]


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    names = [data for data in DATA if data == "icd10" or BANKING.is_dir()]
    return table(results_file.measure_missing(RESULTS, names, SEEDS, measure_cell))
