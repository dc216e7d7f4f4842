"""N-way K-shot episodes; each is a function of the pool, its shape, a seed and an index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas_meta.core.wording import counted
from nas_meta.errors import DataError
from nas_meta.tasks.examples import IMAGE
from nas_meta.tasks.pool import Pool, Tasks

MIN_WAYS = 2  # classes that can be distinguished at all
EVEN = "[0.34, 0.33, 0.33]"  # fractions that give each split a third of the classes
MANY_WAYS = 4  # meta-training episodes with many classes have this many times those of evaluation episodes
MANY_WAYS_QUERIES = 2  # query examples per class of such an episode
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
        support: ``[N, K]``, indices into the pool; row n holds the support examples of class n, and last its name if
            names are used, which is then one of K + 1.
        query: ``[N, Q]``, indices into the pool; row n holds the query examples of class n. No example is in both sets.
    """

    support: np.ndarray
    query: np.ndarray

    @property
    def indices(self) -> np.ndarray:
        """``[N*K + N*Q]``, indices of the support examples class by class, then of the query examples."""
        return np.concatenate([self.support.ravel(), self.query.ravel()])

    @property
    def order_key(self) -> np.ndarray:
        """What decides the order of the support examples in a prompt."""
        return self.indices

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

    If classes have groups, a group with enough classes is drawn before them.

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
    choices = [classes for classes in pool.choices if len(classes) >= shape.ways] or pool.choices
    classes = choices[rng.integers(len(choices))] if pool.groups else choices[0]
    rows = [
        rng.choice(pool.members[c], shape.shots + shape.queries, replace=False)
        for c in rng.choice(classes, shape.ways, replace=False)
    ]
    block = np.stack(rows)
    return Episode(pool.with_names(block[:, : shape.shots]), block[:, shape.shots :])


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


def many_ways(tasks: Tasks, ways: int) -> int:
    """Return the classes per episode of a meta-training on many classes.

    Args:
        tasks: Pools of the three splits.
        ways: Classes per evaluation episode.

    Returns:
        Four times ``ways``, or the classes of meta-train if these are fewer, but at least ``ways``. If classes have
        groups, ``ways``: more classes would leave out the smaller groups.
    """
    pool = tasks["meta-train"]
    return ways if pool.groups else max(ways, min(MANY_WAYS * ways, len(pool.classes)))


def check_shape(tasks: Tasks, shape: EpisodeShape, train: EpisodeShape | None = None) -> None:
    """Check that every split has enough classes and examples for its episodes.

    Args:
        tasks: Pools of the three splits.
        shape: Shape of evaluation episodes.
        train: Shape of meta-training episodes; ``shape`` if None.

    Raises:
        DataError: A split has too few classes, or no group with enough of them, or a class has too few examples.
    """
    for split, pool in tasks.pools.items():
        differs = split == "meta-train" and train is not None and train != shape
        key, wanted = ("tasks.train_", train) if differs else ("tasks.", shape)
        own_ways = differs and wanted.ways != shape.ways
        ways = f"tasks.{'train_' if own_ways else ''}ways is {wanted.ways}"
        if pool.most_ways < wanted.ways and any(other.groups for other in tasks.pools.values()):
            remedy = _group_remedy(tasks, wanted.ways)
            raise DataError(f"{ways}, but no group of {split} has as many classes; {remedy}")
        if len(pool.classes) < wanted.ways:
            remedy = _remedy(tasks, wanted, len(pool.classes), own_ways)
            raise DataError(f"{ways}, but {split} has {_classes(len(pool.classes))}; {remedy}")
        _check_examples(split, pool, wanted, key)


def _remedy(tasks: Tasks, shape: EpisodeShape, classes: int, differs: bool) -> str:
    """Return what would suffice where a split has too few classes.

    Args:
        tasks: Pools of the three splits.
        shape: Shape of episodes that the split cannot fill.
        classes: Number of classes of the split.
        differs: Whether the shape is that of meta-training alone.
    """
    left_out = "".join(f"; {sentence}" for sentence in tasks.report if " classes with fewer than " in sentence)
    if differs and classes >= MIN_WAYS:
        return f"expected at most {classes}{left_out}"
    counts = [len(pool.classes) for pool in tasks.pools.values()]
    total, fewest = sum(counts), min(counts)
    lower = f"expected at most {fewest}" if fewest >= MIN_WAYS else ""
    if total >= 3 * shape.ways:
        even = f"an even division of the {total} classes, such as tasks.fractions: {EVEN}"
        return f"{f'{lower}, or' if lower else 'expected'} {even}{left_out}"
    if lower:
        return f"{lower}, or {3 * shape.ways} classes in all, of which there are {total}{left_out}"
    images = any(pool.modality == IMAGE for pool in tasks.pools.values())
    group = "" if images else "; or tasks.group, a field that divides the examples into tasks of the same few classes"
    return (
        f"no class is in two splits, so even {MIN_WAYS}-way episodes need {3 * MIN_WAYS} classes with tasks.fractions: "
        f"{EVEN}, but there {'is' if total == 1 else 'are'} {_classes(total)}{left_out}{group}"
    )


def _group_remedy(tasks: Tasks, ways: int) -> str:
    """Return what would suffice where a split has no group with enough classes."""
    sizes = [len(classes) for pool in tasks.pools.values() if pool.groups for classes in pool.choices]
    if max(sizes) < ways:
        return f"expected at most {max(sizes)}, the classes of the largest group"
    enough = sum(size >= ways for size in sizes)
    if enough >= 3:
        return f"expected such a group in each split, as with tasks.fractions: {EVEN}; the data have {enough}"
    return f"expected such a group in each split, but the data have {enough}"


def _classes(count: int) -> str:
    return counted(count, "class", "classes")


def _check_examples(split: str, pool: Pool, shape: EpisodeShape, key: str) -> None:
    """Check the number of examples of each class; ``key`` is the prefix of the config keys that set the shape."""
    fewest = min(len(m) for m in pool.members)
    if fewest < shape.shots + shape.queries:
        smallest = pool.classes[int(np.argmin([len(m) for m in pool.members]))]
        raise DataError(
            f"{key}shots + {key}queries is {shape.shots + shape.queries}, but the class '{smallest}' of "
            f"{split} has {fewest} examples; lower them or raise tasks.min_examples"
        )
