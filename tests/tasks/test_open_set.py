"""Open-set episodes: the closed-set episode with the same seed, and queries of other classes."""

import numpy as np
import pytest

from nas_meta.errors import DataError
from nas_meta.tasks.episodes import EpisodeShape, episode
from nas_meta.tasks.open_set import open_set_episode
from nas_meta.tasks.pool import Pool

SHAPE = EpisodeShape(ways=3, shots=2, queries=2)


def pool(classes, **further):
    return Pool([str(c) for c in range(classes)], ["x"] * (6 * classes), np.repeat(np.arange(classes), 6), **further)


def test_the_other_queries_are_of_classes_outside_the_episode():
    for i in range(20):
        task, closed = open_set_episode(pool(6), SHAPE, 3, 0, i), episode(pool(6), SHAPE, 0, i)
        assert np.array_equal(task.support, closed.support) and np.array_equal(task.query, closed.query)
        others = {*(task.outside // 6).ravel().tolist()}
        assert task.outside.shape == (3, 2) and len(others) == 3
        assert not others & {*(task.support // 6).ravel().tolist()}


def test_too_few_other_classes_are_refused():
    with pytest.raises(
        DataError, match=r"open-set episodes need 3 classes besides the 3 of tasks.ways, but there are 2"
    ):
        open_set_episode(pool(5), SHAPE, 3, 0, 0)


def test_other_classes_are_of_the_same_group():
    grouped = pool(10, groups=["a"] * 5 + ["b"] * 5)
    for i in range(20):
        task = open_set_episode(grouped, SHAPE, 2, 0, i)
        assert len({*(np.concatenate([task.support, task.outside]) // 30).ravel().tolist()}) == 1
