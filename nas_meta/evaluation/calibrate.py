"""Calibrate a trained model on open-set episodes of meta-validation, and measure the calibration on meta-test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas_meta.evaluation.calibration import LEVELS, Calibration
from nas_meta.evaluation.open_set import (
    EPISODES,
    EmbeddedSplit,
    embedded,
    open_set_metrics,
    open_tasks,
    scores_of,
)
from nas_meta.learners.metric import MetricLearner
from nas_meta.tasks.episodes import EpisodeShape, episodes
from nas_meta.tasks.open_set import OpenSetEpisode

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.models.encoder import Encoder

SHOTS = (1, 2, 5, 10)
STATED = 0.05  # share of refused queries at which the model card states what is reached


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
    # A class name is one more support example, as it is in the support set of a classifier.
    by_size: dict[int, list[OpenSetEpisode]] = {}
    for shots in (*SHOTS, shape.shots):
        if shots + shape.queries <= fewest:
            tasks = open_tasks(validation, EpisodeShape(shape.ways, shots, shape.queries), seed)
            by_size[tasks[0].support.shape[1]] = tasks
    if not by_size:
        return None
    if validation.pool.name_rows is not None:  # classes that have a name, but no example yet
        tasks = next(iter(by_size.values()))
        by_size[1] = [replace(task, support=task.support[:, -1:]) for task in tasks]
    quantiles = {}
    for size, tasks in by_size.items():
        found = (scores_of(validation, task) for task in tasks)
        values = [units.standardised(inside) for units, inside, _ in found]
        quantiles[size] = np.quantile(np.concatenate(values), LEVELS, method="lower").tolist()
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
        refused.append((inside < calibration.threshold(units, tasks[0].support.shape[1], STATED)).mean())
    logits, targets = logits_of(split, learner, encoder, shape, seed, EPISODES)
    after = calibration_error(logits / calibration.temperature(shape.ways), targets)
    return {
        **open_set_metrics(split, tasks), "refused": float(np.mean(refused)),
        "ece_before": calibration_error(logits, targets), "ece_after": after,
    }  # fmt: skip
