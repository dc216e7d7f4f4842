"""The logits of a trained model on every query of a split's first tasks, for whatever combines or calibrates models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas_meta.evaluation.full_way import FullWayTask, draws, in_chunks
from nas_meta.evaluation.protocols import FULL_WAY
from nas_meta.learners.base import embed_distinct
from nas_meta.learners.metric import MetricLearner, mapped
from nas_meta.tasks.episodes import Episode, episodes

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.models.encoder import Encoder


def tasks_of(evaluation: Evaluation, split: str, count: int) -> list[Episode]:
    """Return the tasks on which :meth:`Evaluation.accuracies` scores a model.

    Args:
        evaluation: The evaluation, with the tasks, their shape, the seed and the protocol.
        split: ``meta-train``, ``meta-validation`` or ``meta-test``.
        count: Number of episodes, or of full-way draws.
    """
    pool, shape, seed = evaluation.tasks[split], evaluation.shape, evaluation.settings.seed
    if evaluation.settings.protocol == FULL_WAY:
        return list(draws(pool, shape.shots, seed, count))
    return list(episodes(pool, shape, seed, count))


def query_logits(evaluation: Evaluation, encoder: Encoder, split: str, tasks: Sequence[Episode]) -> np.ndarray:
    """Classify the queries of tasks as in the validation of a trial; the random state of torch is preserved.

    Args:
        evaluation: The evaluation of the model's architecture.
        encoder: The model; it is in evaluation mode afterwards.
        split: Split of the tasks.
        tasks: Tasks with equal numbers of classes, as :func:`tasks_of` returns them.

    Returns:
        ``[Q, N]``, the queries of one task after those of the other.
    """
    pool, learner = evaluation.tasks[split], evaluation.learner
    with torch.random.fork_rng():
        torch.manual_seed(evaluation.settings.seed)
        if isinstance(learner, MetricLearner):
            return _compared(learner, encoder, *embed_distinct(encoder, pool, tasks), tasks)
        encoder.eval()
        parts = [part for task in tasks for part in (in_chunks(task) if isinstance(task, FullWayTask) else [task])]
        found = [learner.classify(encoder, pool, part).detach()[:, : len(part.support)] for part in parts]
        return torch.cat(found).float().cpu().numpy()


def _compared(
    learner: MetricLearner, encoder: Encoder, z: torch.Tensor, position: np.ndarray, tasks: Sequence[Episode]
) -> np.ndarray:
    """Classify by comparing embeddings of all examples of the tasks."""
    found = []
    with torch.inference_mode():
        z = mapped(encoder, z)
        for task in tasks:
            labels = torch.from_numpy(task.support_labels).to(z.device)
            support, query = z[position[task.support.ravel()]], z[position[task.query.ravel()]]
            found.append(learner.task_logits(encoder, support, labels, len(task.support), query))
        return torch.cat(found).float().cpu().numpy()
