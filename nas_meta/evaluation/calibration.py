"""Calibrate a trained model on open-set episodes of meta-validation: probabilities, and when to refuse an answer.

A new task has no out-of-scope examples and perhaps 25 labelled ones, too few to place a threshold. What transfers from
other tasks is the threshold in standard units: each task's scores are standardised by its own leave-one-out scores
(:func:`nas_meta.learners.open_set.units_of`), and the quantiles of standardised queries are those of meta-validation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas_meta.evaluation.open_set import (
    EPISODES,
    EmbeddedSplit,
    embedded,
    open_set_metrics,
    open_tasks,
    scores_of,
)
from nas_meta.learners.metric import MetricLearner
from nas_meta.learners.open_set import Units
from nas_meta.tasks.episodes import EpisodeShape, episodes

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.models.encoder import Encoder

VERSION = 1
LEVELS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
SHOTS = (1, 2, 5, 10)
STATED = 0.05  # share of refused queries at which the model card states what is reached


@dataclass(frozen=True)
class Calibration:
    """What a model learned about its own scores.

    Attributes:
        quantiles: By number of shots, the quantiles of standardised scores in scope at :data:`LEVELS`.
        temperatures: By number of classes, what logits are divided by.
        measured: Measurements on meta-test: ``oos_auroc``, ``oos_fpr95``, ``refused`` (share of queries in scope that
            ``refuse`` = 0.05 refuses), ``ece_before`` and ``ece_after``.
    """

    quantiles: dict[int, list[float]]
    temperatures: dict[int, float]
    measured: dict[str, float] = field(default_factory=dict)

    def threshold(self, units: Units, shots: float, refuse: float) -> float:
        """Return the score below which a task refuses an answer.

        Args:
            units: Standard units of the task.
            shots: Mean number of support examples per class.
            refuse: Share of queries in scope that may be refused.
        """
        known = [s for s in self.quantiles if (s > 1) == units.left_out] or list(self.quantiles)
        nearest = min(known, key=lambda s: abs(np.log(s / shots)))
        level = max((i for i, level in enumerate(LEVELS) if level <= refuse), default=0)
        return units.location + units.scale * self.quantiles[nearest][level]

    def temperature(self, ways: int) -> float:
        """Return what the logits of a task are divided by: interpolated in the logarithm of the number of classes."""
        known = sorted(self.temperatures)
        logs = np.log([self.temperatures[w] for w in known])
        return float(np.exp(np.interp(np.log(ways), np.log(known), logs)))

    def as_json(self, learner: str) -> str:
        """Return the calibration as one JSON document.

        Args:
            learner: What identifies the learner, its options and the pooling.
        """
        return json.dumps({"version": VERSION, "learner": learner, **asdict(self)}, indent=1)


def from_json(text: str, learner: str) -> Calibration | None:
    """Read what :meth:`Calibration.as_json` returned.

    Args:
        text: The document.
        learner: What identifies the learner now.

    Returns:
        The calibration; None if it is that of another learner.

    Raises:
        ValueError: It is something else.
    """
    document: Any = json.loads(text)
    try:
        if document["learner"] != learner:
            return None
        quantiles = {int(shots): [float(q) for q in row] for shots, row in document["quantiles"].items()}
        temperatures = {int(ways): float(t) for ways, t in document["temperatures"].items()}
        valid = document["version"] == VERSION and quantiles and temperatures and min(temperatures.values()) > 0
        if not valid or any(len(row) != len(LEVELS) for row in quantiles.values()):
            raise ValueError("calibration")
        return Calibration(quantiles, temperatures, {k: float(v) for k, v in document["measured"].items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("calibration") from error


def calibrate(evaluation: Evaluation, encoder: Encoder, learner: MetricLearner) -> Calibration | None:
    """Calibrate a trained model on meta-validation, and measure the calibration on meta-test.

    Args:
        evaluation: The evaluation, with the tasks and the shape of episodes.
        encoder: The model.
        learner: Its learner.

    Returns:
        The calibration; None if a split has no class besides those of an episode.
    """
    seed, shape = evaluation.settings.seed, evaluation.shape
    parts = {name: embedded(evaluation, encoder, name) for name in ("meta-validation", "meta-test")}
    if any(split.pool.most_ways <= shape.ways for split in parts.values()):
        return None
    validation, test = parts.values()
    fewest = min(map(len, validation.pool.members))
    quantiles, shapes = {}, {shots: EpisodeShape(shape.ways, shots, shape.queries) for shots in (*SHOTS, shape.shots)}
    for shots, wanted in shapes.items():
        if shots + shape.queries > fewest:
            continue
        tasks = (scores_of(validation, task) for task in open_tasks(validation, wanted, seed))
        values = [units.standardised(inside) for units, inside, _ in tasks]
        quantiles[shots] = np.quantile(np.concatenate(values), LEVELS, method="lower").tolist()
    if not quantiles:
        return None
    all_ways = EpisodeShape(validation.pool.most_ways, shape.shots, shape.queries)
    temperatures = {
        wanted.ways: best_temperature(*logits_of(validation, learner, encoder, wanted, seed, count))
        for wanted, count in ((shape, EPISODES), (all_ways, 10))
    }
    calibration = Calibration(quantiles, temperatures)
    return Calibration(quantiles, temperatures, measured(test, calibration, learner, encoder, shape, seed))


def logits_of(
    split: EmbeddedSplit, learner: MetricLearner, encoder: Encoder, shape: EpisodeShape, seed: int, count: int
) -> tuple[Tensor, Tensor]:
    """Return the logits ``[queries, N]`` of all episodes and the class of each query."""
    logits, targets = [], []
    with torch.no_grad():
        for task in episodes(split.pool, shape, seed, count):
            labels = torch.from_numpy(task.support_labels).to(split.z.device)
            support, query = split.z[task.support.ravel()], split.z[task.query.ravel()]
            logits.append(learner.task_logits(encoder, support, labels, shape.ways, query).double().cpu())
            targets.append(torch.from_numpy(task.labels))
    return torch.cat(logits), torch.cat(targets)


def best_temperature(logits: Tensor, targets: Tensor) -> float:
    """Return the temperature with the least cross-entropy (Guo et al. 2017), to 2 %, between 0.01 and 100."""
    candidates = np.exp(np.linspace(np.log(0.01), np.log(100), 466))
    losses = [float(torch.nn.functional.cross_entropy(logits / t, targets)) for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def calibration_error(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Compute the expected calibration error: the mean gap of confidence and accuracy over bins of equal width.

    Args:
        logits: ``[M, N]``.
        targets: ``[M]``, the true classes.
        bins: Number of bins of the confidence.
    """
    confidence, guess = logits.softmax(1).max(1)
    right, index = (guess == targets).double(), (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.double).index_add_(0, index, right - confidence)
    return float(gaps.abs().sum() / len(targets))


def measured(
    split: EmbeddedSplit,
    calibration: Calibration,
    learner: MetricLearner,
    encoder: Encoder,
    shape: EpisodeShape,
    seed: int,
) -> dict[str, float]:
    """Measure a calibration on a split that it was not fitted to."""
    tasks = open_tasks(split, shape, seed)
    refused = []
    for units, inside, _ in (scores_of(split, task) for task in tasks):
        refused.append((inside < calibration.threshold(units, shape.shots, STATED)).mean())
    logits, targets = logits_of(split, learner, encoder, shape, seed, EPISODES)
    after = calibration_error(logits / calibration.temperature(shape.ways), targets)
    return {
        **open_set_metrics(split, tasks), "refused": float(np.mean(refused)),
        "ece_before": calibration_error(logits, targets), "ece_after": after,
    }  # fmt: skip
