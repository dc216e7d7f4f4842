"""Checks the data of a config alone: no model is loaded and nothing is trained."""

from __future__ import annotations

from nas_meta.config.problem import episode_shape, make_source, train_shape
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.tasks.data_facts import DataFacts, data_facts, word_tasks
from nas_meta.tasks.episodes import check_shape


def check_data(resolved: ResolvedConfig) -> DataFacts:
    """Read, clean and split the data of a config, and check that its episodes can be drawn from them.

    Args:
        resolved: The config.

    Returns:
        What was found.

    Raises:
        DataError: The data cannot be read, or a split has too few classes or examples.
        PluginError: The task source raised another exception.
    """
    source = make_source(resolved)
    split = source.load()
    tasks = word_tasks(split)
    shape = episode_shape(resolved, tasks=tasks)
    check_shape(tasks, shape, train_shape(resolved, tasks).of(shape))
    return data_facts(split, shape, source.where())
