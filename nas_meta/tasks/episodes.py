"""N-way K-shot episodes; each is a function of the pool, its shape, a seed and an index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas_meta.errors import DataError
from nas_meta.tasks.pool import Pool, Tasks

MOST_WAYS = 5  # classes per episode, unless the config sets them or a split has fewer


@dataclass(frozen=True)
class EpisodeShape:
    """The shape of an episode.

    Attributes:
        ways: Number of classes (N).
        shots: Support examples per class (K).
        queries: Query examples per class (Q).
    """

    ways: int
    shots: int
    queries: int


@dataclass(frozen=True)
class TrainShape:
    """The values by which meta-training episodes differ from evaluation episodes.

    Attributes:
        ways: Number of classes; None for that of evaluation episodes.
        shots: Support examples per class; None for that of evaluation episodes.
        queries: Query examples per class; None for that of evaluation episodes.
    """

    ways: int | None = None
    shots: int | None = None
    queries: int | None = None

    def of(self, shape: EpisodeShape) -> EpisodeShape:
        """Return the shape of meta-training episodes.

        Args:
            shape: Shape of evaluation episodes, which fills in the values that are None.
        """
        return EpisodeShape(self.ways or shape.ways, self.shots or shape.shots, self.queries or shape.queries)


@dataclass(frozen=True)
class Episode:
    """One few-shot task: a support set to learn from and a query set to be scored on.

    Attributes:
        support: ``[N, K]``, indices into the pool; row n holds the support examples of class n.
        query: ``[N, Q]``, indices into the pool; row n holds the query examples of class n. No example is in both sets.
    """

    support: np.ndarray
    query: np.ndarray

    @property
    def indices(self) -> np.ndarray:
        """``[N*K + N*Q]``, indices of the support examples class by class, then of the query examples."""
        return np.concatenate([self.support.ravel(), self.query.ravel()])

    @property
    def labels(self) -> np.ndarray:
        """``[N*Q]``, class of each query example, in the order of :attr:`indices`."""
        return np.repeat(np.arange(len(self.query)), self.query.shape[1])

    @property
    def support_labels(self) -> np.ndarray:
        """``[N*K]``, class of each support example, in the order of :attr:`indices`."""
        return np.repeat(np.arange(len(self.support)), self.support.shape[1])


def episode(pool: Pool, shape: EpisodeShape, seed: int, index: int) -> Episode:
    """Draw an episode: first its classes, then the examples of each, uniformly without replacement.

    Args:
        pool: Pool to draw from.
        shape: Number of classes, support examples and query examples.
        seed: Seed of a sequence of episodes.
        index: Position in the sequence, from 0.

    Returns:
        The same episode for the same arguments.

    Raises:
        ValueError: The pool has too few classes, or a drawn class too few examples; see :func:`check_shape`.
    """
    rng = np.random.default_rng([seed, index])
    rows = [
        rng.choice(pool.members[c], shape.shots + shape.queries, replace=False)
        for c in rng.choice(len(pool.classes), shape.ways, replace=False)
    ]
    block = np.stack(rows)
    return Episode(block[:, : shape.shots], block[:, shape.shots :])


def episodes(pool: Pool, shape: EpisodeShape, seed: int, count: int) -> Iterator[Episode]:
    """Draw the first episodes of a seed.

    Args:
        pool: Pool to draw from.
        shape: Number of classes, support examples and query examples.
        seed: Seed of the sequence of episodes.
        count: Number of episodes.

    Returns:
        Iterator over the episodes with indices 0 to ``count - 1``.
    """
    return (episode(pool, shape, seed, i) for i in range(count))


def default_ways(tasks: Tasks) -> int:
    """Return the classes per episode of a config that does not set them.

    Args:
        tasks: Pools of the three splits.

    Returns:
        5, or the classes of the smallest split if it has fewer; at least 2.
    """
    return max(2, min(MOST_WAYS, *(len(pool.classes) for pool in tasks.pools.values())))


def check_shape(tasks: Tasks, shape: EpisodeShape, train: EpisodeShape | None = None) -> None:
    """Check that every split has enough classes and examples for its episodes.

    Args:
        tasks: Pools of the three splits.
        shape: Shape of evaluation episodes.
        train: Shape of meta-training episodes; ``shape`` if None.

    Raises:
        DataError: A split has too few classes, or one of its classes too few examples.
    """
    for split, pool in tasks.pools.items():
        differs = split == "meta-train" and train is not None and train != shape
        smallest = len(pool.classes) if differs else min(len(p.classes) for p in tasks.pools.values())
        _check_pool(split, pool, train if differs else shape, "tasks.train_" if differs else "tasks.", smallest)


def _check_pool(split: str, pool: Pool, shape: EpisodeShape, key: str, most: int) -> None:
    """Check one pool; ``key`` is the prefix of the config keys that set the shape, ``most`` the ways that all allow."""
    if len(pool.classes) < shape.ways:
        classes = f"{split} has {len(pool.classes)} class{'es' * (len(pool.classes) != 1)}"
        if most < 2:
            raise DataError(
                f"{key}ways is {shape.ways}, but {classes}; expected at least 2 in every split, by more classes or "
                "another tasks.fractions"
            )
        raise DataError(f"{key}ways is {shape.ways}, but {classes}; set {key}ways: {most}, or add classes")
    fewest = min(len(m) for m in pool.members)
    if fewest < shape.shots + shape.queries:
        smallest = pool.classes[int(np.argmin([len(m) for m in pool.members]))]
        raise DataError(
            f"{key}shots + {key}queries is {shape.shots + shape.queries}, but the class '{smallest}' of "
            f"{split} has {fewest} examples; lower them or raise tasks.min_examples"
        )
