"""Full-way evaluation: all classes of a split at once, over several draws of the support set.

A customer has 20 to 150 classes, not five. The support set holds K examples of every class and the queries are all
other examples, so that draws differ in the support set alone. A draw is the unit of the interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.errors import ConfigError, DataError
from nas_meta.evaluation.protocols import DRAWS, FULL_WAY
from nas_meta.learners.base import Learner
from nas_meta.learners.support import UserTask
from nas_meta.tasks.episodes import Episode, EpisodeShape, episodes
from nas_meta.tasks.pool import Pool

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation

CHUNK = 1024  # queries that a learner classifies at a time


@dataclass(frozen=True)
class FullWayTask(UserTask):
    """A support set of all classes with queries of known classes, which may differ in number.

    Attributes:
        support: ``[N, K]``, indices into the pool; row n holds the support examples of class n.
        query: ``[1, M]``, indices into the pool.
        targets: ``[M]``, class of each query.
    """

    targets: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return self.targets


def draw(pool: Pool, shots: int, seed: int, index: int, queries: np.ndarray | None = None) -> FullWayTask:
    """Draw K support examples of every class.

    Args:
        pool: Pool to draw from.
        shots: K, support examples per class.
        seed: Seed of a sequence of draws.
        index: Position in the sequence, from 0.
        queries: ``[M]``, indices of the queries of every draw, which are then never support examples, such as the test
            file of a data set; None takes all examples outside the support set.

    Returns:
        The same task for the same arguments.

    Raises:
        DataError: A class has too few examples.
    """
    rng = np.random.default_rng([seed, index])
    rows, least = [], shots + (queries is None)
    for name, members in zip(pool.classes, pool.members, strict=True):
        allowed = members if queries is None else members[~np.isin(members, queries)]
        if len(allowed) < least:
            raise DataError(
                f"full-way evaluation with {shots} shots needs {least} examples of every class, but the class '{name}' "
                f"has {len(allowed)}; expected fewer shots, or a larger tasks.min_examples"
            )
        rows.append(rng.choice(allowed, shots, replace=False))
    support = np.stack(rows)
    rest = np.setdiff1d(pool.examples, support) if queries is None else queries
    return FullWayTask(pool.with_names(support), rest[None], pool.labels[rest])


def draws(
    pool: Pool, shots: int, seed: int, count: int = DRAWS, queries: np.ndarray | None = None
) -> list[FullWayTask]:
    """Draw the first tasks of a seed.

    Args:
        pool: Pool to draw from; its classes have no groups.
        shots: K, support examples per class.
        seed: Seed of the sequence.
        count: Number of draws.
        queries: As for :func:`draw`.

    Returns:
        ``count`` tasks.

    Raises:
        DataError: A class has too few examples, or classes belong to groups.
    """
    if pool.groups:
        raise DataError(
            "full-way evaluation takes all classes of a split at once, but tasks.group divides them into tasks; "
            "expected evaluation.protocol: episodes"
        )
    return [draw(pool, shots, seed, i, queries) for i in range(count)]


def query_count(pool: Pool, shape: EpisodeShape, protocol: str) -> int:
    """Return the number of queries of a task.

    Args:
        pool: Pool that the task is drawn from.
        shape: Shape of episodes.
        protocol: ``episodes``, or ``full-way``, where all examples outside the support set are queries.
    """
    return len(pool.examples) - shape.shots * len(pool.classes) if protocol == FULL_WAY else shape.ways * shape.queries


def accuracies(score: Callable[[Sequence[Episode]], np.ndarray], tasks: Sequence[FullWayTask]) -> np.ndarray:
    """Score draws in chunks of queries, so that memory does not grow with the number of examples.

    Args:
        score: Returns the accuracy on each of some tasks, such as ``learner.accuracies`` for an encoder and a pool.
        tasks: The draws.

    Returns:
        ``[draws]``, the share of queries that are classified correctly, from 0 to 1.
    """
    parts = [(i, part) for i, task in enumerate(tasks) for part in in_chunks(task)]
    right = np.zeros(len(tasks))
    for (i, part), accuracy in zip(parts, score([part for _, part in parts]), strict=True):
        right[i] += round(float(accuracy) * len(part.targets))
    return right / [len(task.targets) for task in tasks]


def scores(
    evaluation: Evaluation, split: str, count: int, score: Callable[[Sequence[Episode]], np.ndarray]
) -> np.ndarray:
    """Score the first tasks of a split under the protocol of an evaluation.

    Args:
        evaluation: The evaluation, with the tasks, their shape, the seed and the protocol.
        split: ``meta-train``, ``meta-validation`` or ``meta-test``.
        count: Number of episodes, or of draws.
        score: Returns the accuracy on each of some tasks.

    Returns:
        ``[count]``, the accuracy on each task, from 0 to 1.
    """
    pool, shape, seed = evaluation.tasks[split], evaluation.shape, evaluation.settings.seed
    if evaluation.settings.protocol == FULL_WAY:
        return accuracies(score, draws(pool, shape.shots, seed, count))
    return score(list(episodes(pool, shape, seed, count)))


def check_learner(learner: Learner, protocol: str) -> None:
    """Check that a learner can be judged by a protocol.

    Args:
        learner: The learner.
        protocol: ``episodes`` or ``full-way``.

    Raises:
        ConfigError: Its head has a fixed number of classes, but full-way evaluation takes all classes of a split.
    """
    if protocol == FULL_WAY and not learner.any_ways:
        raise ConfigError(
            f"full-way evaluation takes all classes of a split at once, but the head of {type(learner).__name__} has "
            "tasks.ways classes; expected evaluation.protocol: episodes, or a learner without a fixed head, such as "
            "protonet"
        )


def in_chunks(task: FullWayTask) -> list[FullWayTask]:
    """Divide the queries of a draw into chunks, which bound the memory that a learner needs.

    Args:
        task: The draw.

    Returns:
        Tasks with the same support set.
    """
    starts = range(0, len(task.targets), CHUNK)
    return [
        replace(task, query=task.query[:, start : start + CHUNK], targets=task.targets[start : start + CHUNK])
        for start in starts
    ]
