"""Fits the head of a metric learner after the training, and chooses head and form of evaluation on meta-validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas_meta.learners.base import accuracy, embed_distinct
from nas_meta.learners.heads import HEADS, LINEAR, NONE, TRAIN_QUERIES, TRAIN_WAYS, Map, apply, linear, whitening
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode, EpisodeShape, episodes
from nas_meta.tasks.pool import Pool, Tasks

if TYPE_CHECKING:
    from nas_meta.learners.metric import MetricLearner

AUTO = "auto"
EXAMPLES = 2000  # about the largest number of meta-train examples that a head is fitted on
OTHER_EPISODES = 1_000_003  # added to the seed: a choice is not judged on the episodes that trials are judged on


def fit_head(
    learner: MetricLearner, encoder: Encoder, tasks: Tasks, shape: EpisodeShape, seed: int, count: int
) -> None:
    """Fit the head that the options of a learner name, and choose what they leave open.

    Without a clear winner the choice is what needs no choice: no head, and the form of evaluation that the training
    had. A candidate is clearly better if the mean of its differences per episode is more than their standard error.

    Args:
        learner: The learner.
        encoder: The trained encoder; its head and its form of evaluation are set.
        tasks: The examples.
        shape: Shape of evaluation episodes.
        seed: Seed of whatever is drawn.
        count: Number of meta-validation episodes that a choice is judged on.
    """
    wanted, forms = getattr(learner.options, "head", NONE), learner.forms()
    names = HEADS if wanted == AUTO else (wanted,)
    fitted = _fit(learner, encoder, tasks["meta-train"], shape, seed, names)
    form = learner.training_form
    # The form of the training first: of equal candidates the first one is chosen.
    candidates = [(name, i) for name in names for i in sorted(range(len(forms)), key=lambda i: i != form)]
    chosen = candidates[0]
    if len(candidates) > 1:
        scores = _scores(learner, encoder, tasks["meta-validation"], shape, seed, count, fitted, candidates)
        best = max(candidates, key=lambda candidate: float(scores[candidate].mean()))
        gain = scores[best] - scores[chosen]
        if gain.mean() > gain.std() / math.sqrt(len(gain)):
            chosen = best
    if hasattr(encoder.learned, "head"):
        encoder.learned.head.set(chosen[0], fitted[chosen[0]])
    if hasattr(encoder.learned, "form"):
        encoder.learned.form.fill_(chosen[1])


def some_examples(pool: Pool, least: int, seed: int) -> np.ndarray:
    """Draw examples to fit a head on, about the same number of each class.

    Args:
        pool: The meta-train examples.
        least: Number of examples that every class gets, if it has as many.
        seed: Seed of the draw.

    Returns:
        ``[examples]``, sorted indices into the pool, about :data:`EXAMPLES`.
    """
    rng = np.random.default_rng(seed)
    count = max(least, EXAMPLES // len(pool.members))
    drawn = [rng.choice(members, min(count, len(members)), replace=False) for members in pool.members]
    return np.sort(np.concatenate(drawn))


def _fit(
    learner: MetricLearner, encoder: Encoder, pool: Pool, shape: EpisodeShape, seed: int, names: Sequence[str]
) -> dict[str, Map | None]:
    """Fit the named heads on cached embeddings of meta-train."""
    fitted: dict[str, Map | None] = {NONE: None}
    if set(names) == {NONE}:
        return fitted
    part, indices = pool.labels_alone(some_examples(pool, shape.shots + TRAIN_QUERIES, seed))
    encoder.eval()
    with torch.no_grad():
        z = encoder.embed(pool, indices, 64)
    for name in names:
        if name == LINEAR:
            logits = partial(learner.logits, encoder)
            fitted[name] = linear(z, part, logits, _train_shape(part, shape), seed)
        elif name != NONE:
            rows = part.examples
            fitted[name] = whitening(z[torch.from_numpy(rows)], part.labels[rows], learner.options.shrinkage)
    return fitted


def _train_shape(pool: Pool, shape: EpisodeShape) -> EpisodeShape:
    """Shape of the episodes that a linear head is trained on: many classes, as far as the examples suffice."""
    fewest = min(map(len, pool.members))
    shots = max(1, min(shape.shots, fewest - 1))
    ways = shape.ways if pool.groups else max(shape.ways, min(TRAIN_WAYS, len(pool.classes)))
    return EpisodeShape(ways, shots, max(1, min(TRAIN_QUERIES, fewest - shots)))


def _scores(
    learner: MetricLearner, encoder: Encoder, pool: Pool, shape: EpisodeShape, seed: int, count: int,
    fitted: dict[str, Map | None], candidates: Sequence[tuple[str, int]],
) -> dict[tuple[str, int], np.ndarray]:  # fmt: skip
    """Accuracies ``[count]`` of every candidate, a head and a form of evaluation, on the same episodes."""
    tasks = list(episodes(pool, shape, seed + OTHER_EPISODES, count))
    z, position = embed_distinct(encoder, pool, tasks)

    def accuracy_of(mapped: Tensor, task: Episode, form: str) -> float:
        ways, shots = task.support.shape
        rows = mapped[position[task.indices]]
        support, query = rows[: ways * shots].view(ways, shots, -1), rows[ways * shots :]
        return accuracy(learner.evaluation_logits(encoder, support, query, form), task)

    forms, scores = learner.forms(), {}
    with torch.inference_mode():
        mapped = {name: z if head is None else apply(head, z) for name, head in fitted.items()}
        for name, i in candidates:
            scores[name, i] = np.array([accuracy_of(mapped[name], task, forms[i]) for task in tasks])
    return scores
