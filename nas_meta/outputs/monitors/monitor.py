"""What is told of a search, and to whom: the search talks to one observer, which hands it on to all the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from nas_meta.execution.engine import cause
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial

logger = logging.getLogger("nas_meta")


class Monitor:
    """Hears what happens in a search, from one thread; each overrides what concerns it."""

    def trial_start(self, trial: Trial) -> None:
        """A trial was given to a worker, for the first time or again."""

    def output(self, number: int, text: str, worker: str) -> None:
        """What a trial, or a job under its number, printed on its worker (``host:process``) since the last time."""

    def trial_progress(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        """A meta-training step: its loss, and the validation accuracy where it was measured."""

    def job_start(self, number: int) -> None:
        """The strategy's job begins (0), or the adaptation of the pretrained model (-1)."""

    def job_progress(self, step: int, values: Mapping[str, float]) -> None:
        """A step of what began last."""

    def job_end(self, error: str | None) -> None:
        """Its end, and why it failed."""

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        """The end of a trial; ``leaderboard`` are those of all trials, this one among them."""

    def forget(self, trial: Trial, reason: str) -> None:
        """A trial will be run again: what it did this time does not count."""

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        """The end of the search.

        Args:
            phase: ``done``, ``interrupted`` or ``failed``.
            error: why it failed, a sentence.
        """


class Monitors(Monitor):
    """Hands everything on. One that breaks is told of once, and the search goes on without it.

    Attributes:
        troubles: what went wrong, in sentences.
    """

    def __init__(self) -> None:
        self.troubles: list[str] = []
        self._all: dict[str, Monitor] = {}

    def add(self, name: str, make: Any, *arguments: Any) -> None:
        """Makes an observer and hands everything on to it, if it can be made."""
        try:
            self._all[name] = make(*arguments)
        except Exception as error:
            self._lose(name, error)

    def trouble(self, sentence: str) -> None:
        """Something about watching went wrong."""
        if sentence not in self.troubles:
            self.troubles.append(sentence)
            logger.warning("%s", sentence)

    def _lose(self, name: str, error: Exception) -> None:
        self._all.pop(name, None)
        self.trouble(f"{name}: {cause(error)}; the search goes on without it")

    def _each(self, method: str, *arguments: Any) -> None:
        for name, observer in list(self._all.items()):
            try:
                getattr(observer, method)(*arguments)
            except Exception as error:
                self._lose(name, error)

    def trial_start(self, trial: Trial) -> None:
        self._each("trial_start", trial)

    def output(self, number: int, text: str, worker: str) -> None:
        self._each("output", number, text, worker)

    def trial_progress(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        self._each("trial_progress", trial, step, values)

    def job_start(self, number: int) -> None:
        self._each("job_start", number)

    def job_progress(self, step: int, values: Mapping[str, float]) -> None:
        self._each("job_progress", step, values)

    def job_end(self, error: str | None) -> None:
        self._each("job_end", error)

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        self._each("trial_end", trial, leaderboard)

    def forget(self, trial: Trial, reason: str) -> None:
        self._each("forget", trial, reason)

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        self._each("close", leaderboard, phase, error)
