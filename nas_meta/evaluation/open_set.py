"""How well a model tells queries of other classes apart: open-set episodes of a split, embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas_meta.learners.metric import mapped
from nas_meta.learners.open_set import DEFAULT, SCORES, Units, auroc, fpr95, units_of
from nas_meta.models.profiling import interval95
from nas_meta.tasks.episodes import EpisodeShape
from nas_meta.tasks.open_set import OpenSetEpisode, open_set_episode
from nas_meta.tasks.pool import Pool

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.models.encoder import Encoder

EPISODES = 100
CLASSES, EXAMPLES = 40, 20  # of a split that are embedded, at most


@dataclass(frozen=True)
class EmbeddedSplit:
    """Some embedded examples of a split, after the head; the pool holds their labels alone."""

    pool: Pool
    z: Tensor

    def task(self, task: OpenSetEpisode) -> list[np.ndarray]:
        """Return the embeddings of the support set and of queries in and out of scope."""
        parts = (task.support, task.query, task.outside)
        return [self.z[part.ravel()].float().cpu().numpy() for part in parts]


def embedded(evaluation: Evaluation, encoder: Encoder, split: str) -> EmbeddedSplit:
    """Embed some examples of a split.

    Args:
        evaluation: The evaluation, with the tasks and their shape.
        encoder: The model; it is in evaluation mode afterwards.
        split: ``meta-train``, ``meta-validation`` or ``meta-test``.

    Returns:
        At most 40 classes, of at most 20 examples or as many as an episode needs.
    """
    pool, rng = evaluation.tasks[split], np.random.default_rng(evaluation.settings.seed)
    # Whole groups would be needed for episodes with groups: all classes are kept then.
    count = len(pool.classes) if pool.groups else min(CLASSES, len(pool.classes))
    chosen = np.sort(rng.permutation(len(pool.classes))[:count])
    most = max(EXAMPLES, evaluation.shape.shots + evaluation.shape.queries)
    part, rows = pool.labels_alone(np.concatenate([rng.permutation(pool.members[c])[:most] for c in chosen]), chosen)
    encoder.eval()
    with torch.no_grad():
        return EmbeddedSplit(part, mapped(encoder, encoder.embed(pool, rows, 64)))


def open_tasks(split: EmbeddedSplit, shape: EpisodeShape, seed: int, count: int = EPISODES) -> list[OpenSetEpisode]:
    """Draw open-set episodes with as many other classes as ways, as far as the split has them."""
    others = max(1, min(shape.ways, split.pool.most_ways - shape.ways))
    return [open_set_episode(split.pool, shape, others, seed, i) for i in range(count)]


def scores_of(split: EmbeddedSplit, task: OpenSetEpisode) -> tuple[Units, np.ndarray, np.ndarray]:
    """Return the standard units of a task, and its scores of queries in and out of scope."""
    support, *queries = split.task(task)
    score, labels, ways = SCORES[DEFAULT], task.support_labels, len(task.support)
    inside, outside = (score(support, labels, ways, part).astype(np.float64) for part in queries)
    return units_of(support, labels, ways), inside, outside


def open_set_metrics(split: EmbeddedSplit, tasks: Sequence[OpenSetEpisode]) -> dict[str, float]:
    """Measure how well scores tell queries of other classes apart.

    Args:
        split: The embedded split.
        tasks: Its open-set episodes.

    Returns:
        ``oos_auroc`` and ``oos_fpr95``, means over episodes, with their 95% intervals.
    """
    parts = [scores_of(split, task) for task in tasks]
    found = {"oos_auroc": [auroc(a, b) for _, a, b in parts], "oos_fpr95": [fpr95(a, b) for _, a, b in parts]}
    return {
        key: value
        for name, values in found.items()
        for key, value in ((name, float(np.mean(values))), (f"{name}_ci95", interval95(np.array(values))))
    }
