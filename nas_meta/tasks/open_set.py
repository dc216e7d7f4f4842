"""Open-set episodes: an N-way episode with further queries of M other classes, which belong to none of the N."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas_meta.errors import DataError
from nas_meta.tasks.episodes import Episode, EpisodeShape, episode
from nas_meta.tasks.pool import Pool

OTHERS = 1_000_033  # part of the seed of the other classes, so that the episode itself stays that of the closed set


@dataclass(frozen=True)
class OpenSetEpisode(Episode):
    """An episode with queries that belong to none of its classes.

    Attributes:
        support: ``[N, K]``, indices into the pool; row n holds the support examples of class n.
        query: ``[N, Q]``, indices into the pool; row n holds the query examples of class n.
        outside: ``[M, Q]``, indices into the pool; row m holds queries of the m-th other class.
    """

    outside: np.ndarray


def open_set_episode(pool: Pool, shape: EpisodeShape, others: int, seed: int, index: int) -> OpenSetEpisode:
    """Draw an episode, and queries of other classes.

    Support and query are those of :func:`nas_meta.tasks.episodes.episode` with the same arguments, so that open-set and
    closed-set numbers are paired. If classes have groups, the other classes are of the episode's group.

    Args:
        pool: Pool to draw from.
        shape: Number of classes, support examples and query examples.
        others: M, number of other classes.
        seed: Seed of a sequence of episodes.
        index: Position in the sequence, from 0.

    Returns:
        The same episode for the same arguments.

    Raises:
        DataError: The pool has too few classes besides those of the episode.
    """
    closed = episode(pool, shape, seed, index)
    inside = pool.labels[closed.support[:, 0]]
    group = next(classes for classes in pool.choices if inside[0] in classes)
    rest = np.setdiff1d(group, inside)
    if len(rest) < others:
        raise DataError(
            f"open-set episodes need {others} classes besides the {shape.ways} of tasks.ways, but there are "
            f"{len(rest)}; expected fewer ways, or a split with more classes"
        )
    rng = np.random.default_rng([seed, index, OTHERS])
    rows = []
    for c in rng.choice(rest, others, replace=False):
        members = pool.members[c]
        rows.append(rng.choice(members, shape.queries, replace=len(members) < shape.queries))
    return OpenSetEpisode(closed.support, closed.query, np.stack(rows))
