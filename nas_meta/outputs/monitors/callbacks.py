"""What :func:`nas_meta.search` does after every trial: call the functions of the user, and log a line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas_meta.errors import one_line
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.monitor import Monitor
from nas_meta.outputs.report.formatting import trial_line
from nas_meta.outputs.run import Run

logger = logging.getLogger("nas_meta")


class Callbacks(Monitor):
    """Calls functions of the user after every trial; one that raises is logged and called again after the next trial.

    Args:
        callbacks: Functions of the run and the trial.
        directory: Run directory.
    """

    def __init__(self, callbacks: Sequence[Callable[[Any, Trial], Any]], directory: Path):
        self._callbacks, self._run = callbacks, Run(directory, allow_plugins=True)

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        for callback in self._callbacks:
            try:
                callback(self._run, trial)
            except Exception:
                name = getattr(callback, "__qualname__", type(callback).__qualname__)
                logger.exception(
                    "the callback %s raised after trial %d; the search continues", one_line(name), trial.id
                )


class TrialLines(Monitor):
    """Logs a line per trial at the level INFO, with the best trial so far."""

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        best = leaderboard.leader
        so_far = "" if best is None else "; the best so far" if best.id == trial.id else f"; best: trial {best.id}"
        logger.info("%s%s", trial_line(trial, leaderboard.metrics), so_far)


@contextmanager
def visible_lines() -> Iterator[None]:
    """Print the log lines of nas-meta on standard error during a block, unless the user has configured logging.

    Yields:
        Nothing. A level of the logger ``nas_meta``, or a handler of it or of the root logger, is a configuration.
    """
    if logger.hasHandlers() or logger.level != logging.NOTSET:
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(levelname).1s %(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
