"""The plugins that ship, from the registry: a list in a test that comes from here misses none."""

import pytest

from nas_meta import Strategy
from nas_meta.core import plugins
from strategies.one_shot.base import OneShot


def shipped(kind, without=(), fast=None):
    """The names of the plugins of a kind that come with nas-meta.

    Args:
        kind: A key of ``nas_meta.core.plugins.KINDS``.
        without: Names to leave out.
        fast: Names whose tests are not slow; by default all.
    """
    rows = [row for row in plugins.installed(kind) if row.distribution == "nas-meta" and row.name not in without]
    assert rows and all(row.broken is None for row in rows)
    assert set(without) | set(fast or ()) <= {row.name for row in plugins.installed(kind)}
    return marked([row.name for row in rows], fast)


def marked(names, fast=None):
    """The names, those that are not fast marked slow."""
    return [name if fast is None or name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def strategy_names(test):
    """The names of the strategies whose class passes a test."""
    return [name for name in shipped("strategies") if test(plugins.load("strategies", name))]


def runs_trials_only(strategy):
    """Whether a strategy needs no supernet."""
    return strategy.job is Strategy.job


TRIAL_STRATEGIES = strategy_names(runs_trials_only)
ONE_SHOT_STRATEGIES = strategy_names(lambda strategy: issubclass(strategy, OneShot))
EMBEDDING_LEARNERS = shipped("learners", without=["in-context"])  # in-context learning takes decoders
