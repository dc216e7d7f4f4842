"""N-way K-shot episodes, each reproducible from (seed, index)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas_meta.errors import DataError
from nas_meta.tasks.pool import Pool, Tasks


@dataclass(frozen=True)
class EpisodeShape:
    """N ways, K shots and Q queries a class."""

    ways: int
    shots: int
    queries: int


@dataclass(frozen=True)
class TrainShape:
    """How the episodes of meta-training differ from those that candidates are judged on; None where they do not."""

    ways: int | None = None
    shots: int | None = None
    queries: int | None = None

    def of(self, shape: EpisodeShape) -> EpisodeShape:
        """The episodes of meta-training, where those that candidates are judged on have this shape."""
        return EpisodeShape(self.ways or shape.ways, self.shots or shape.shots, self.queries or shape.queries)


@dataclass(frozen=True)
class Episode:
    """One task.

    Attributes:
        support: ``[N, K]`` indices into the pool; row n holds the support examples of class n.
        query: ``[N, Q]`` indices into the pool, disjoint from the support.
    """

    support: np.ndarray
    query: np.ndarray

    @property
    def indices(self) -> np.ndarray:
        """``[N*K + N*Q]``: the support examples class by class, then the query examples."""
        return np.concatenate([self.support.ravel(), self.query.ravel()])

    @property
    def labels(self) -> np.ndarray:
        """``[N*Q]``: the class of each query example, in the order of :attr:`indices`."""
        return np.repeat(np.arange(len(self.query)), self.query.shape[1])

    @property
    def support_labels(self) -> np.ndarray:
        """``[N*K]``: the class of each support example."""
        return np.repeat(np.arange(len(self.support)), self.support.shape[1])


def episode(pool: Pool, shape: EpisodeShape, seed: int, index: int) -> Episode:
    """The episode of that seed and index: classes, then examples, uniform without replacement."""
    rng = np.random.default_rng([seed, index])
    drawn = [
        rng.choice(pool.members[c], shape.shots + shape.queries, replace=False)
        for c in rng.choice(len(pool.classes), shape.ways, replace=False)
    ]
    block = np.stack(drawn)
    return Episode(block[:, : shape.shots], block[:, shape.shots :])


def episodes(pool: Pool, shape: EpisodeShape, seed: int, count: int) -> Iterator[Episode]:
    """The first ``count`` episodes of a seed."""
    return (episode(pool, shape, seed, i) for i in range(count))


def check_shape(tasks: Tasks, shape: EpisodeShape, train: EpisodeShape | None = None) -> None:
    """Raises DataError where a split cannot give episodes of this shape; those of meta-train may have their own."""
    for split, pool in tasks.pools.items():
        own = split == "meta-train" and train is not None and train != shape
        _check_pool(split, pool, train if own else shape, "tasks.train_" if own else "tasks.")


def _check_pool(split: str, pool: Pool, shape: EpisodeShape, key: str) -> None:
    if len(pool.classes) < shape.ways:
        raise DataError(
            f"{key}ways is {shape.ways}, but {split} has {len(pool.classes)} classes; "
            f"expected at most {len(pool.classes)}"
        )
    fewest = min(len(m) for m in pool.members)
    if fewest < shape.shots + shape.queries:
        smallest = pool.classes[int(np.argmin([len(m) for m in pool.members]))]
        raise DataError(
            f"{key}shots + {key}queries is {shape.shots + shape.queries}, but the class '{smallest}' of "
            f"{split} has {fewest} examples; lower them or raise tasks.min_examples"
        )
