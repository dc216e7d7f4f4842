"""The interface of monitors, and the dispatcher that passes every event of a search on to all of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from nas_meta.core.guard import first_line
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial

logger = logging.getLogger("nas_meta")


class Monitor:
    """Base class of monitors: receives the events of a search and ignores them.

    Subclasses override the events that they need. All methods are called from one thread, that of the driver.
    """

    def trial_start(self, trial: Trial) -> None:
        """Handle the start of a trial on a worker; a retried trial starts again.

        Args:
            trial: The trial.
        """

    def output(self, number: int, text: str, worker: str) -> None:
        """Handle text that a trial or a job printed on its worker since the last call.

        Args:
            number: ID of the trial, or the number of the job (see :meth:`job_start`).
            text: The text; may be empty.
            worker: The worker, ``host:process``; empty if unknown.
        """

    def trial_progress(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        """Handle a step of a trial.

        Args:
            trial: The trial.
            step: Number of steps taken.
            values: Measured values by name: the loss, and the validation accuracy if it was measured at this step.
        """

    def job_start(self, number: int) -> None:
        """Handle the start of a job before the first trial.

        Args:
            number: 0 for the job of the strategy, such as training a supernet; -1 for the domain adaptation of the
                pretrained model.
        """

    def job_progress(self, step: int, values: Mapping[str, float]) -> None:
        """Handle a step of the running job.

        Args:
            step: Number of steps taken.
            values: Measured values by TensorBoard tag.
        """

    def job_end(self, error: str | None) -> None:
        """Handle the end of the running job.

        Args:
            error: Reason of the failure; None if the job succeeded.
        """

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        """Handle the end of a trial.

        Args:
            trial: The trial with its final status.
            leaderboard: All trials so far, including this one.
        """

    def tested(self, report: Mapping[str, Any], leaderboard: Leaderboard) -> None:
        """Handle the results of the meta-test at the end of the search.

        Args:
            report: What :attr:`nas_meta.journal.run.Run.report` will be.
            leaderboard: All trials.
        """

    def forget(self, trial: Trial, reason: str) -> None:
        """Handle the decision to run a trial again, which discards what the monitor recorded of it.

        Args:
            trial: The trial.
            reason: Why it is run again, such as the death of its worker.
        """

    def behind(self) -> set[int]:
        """Return the ids of trials whose end was received but not handled yet, such as by hooks in a thread."""
        return set()

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        """Handle the end of the search and release all resources.

        Args:
            leaderboard: All trials.
            phase: ``done``, ``interrupted`` or ``failed``.
            error: Reason of a failure, one sentence; otherwise None.
        """


class Monitors(Monitor):
    """Passes every event on to several monitors.

    A monitor that raises is dropped and reported once; the search continues without it.

    Attributes:
        troubles: Problems of monitors so far, one sentence each.
    """

    def __init__(self) -> None:
        self.troubles: list[str] = []
        self._all: dict[str, Monitor] = {}

    def add(self, name: str, make: Any, *arguments: Any) -> None:
        """Create a monitor and pass events on to it; if its creation fails, report that instead.

        Args:
            name: Name of the monitor in reports.
            make: Creates the monitor.
            arguments: Arguments of ``make``.
        """
        try:
            self._all[name] = make(*arguments)
        except Exception as error:
            self._drop(name, error)

    def trouble(self, sentence: str) -> None:
        """Report a problem of a monitor, as a warning and in the status of the search; repetitions are ignored.

        Args:
            sentence: The problem, one sentence.
        """
        if sentence not in self.troubles:
            self.troubles.append(sentence)
            logger.warning("%s", sentence)

    def _drop(self, name: str, error: Exception) -> None:
        """Drop a monitor that raised."""
        self._all.pop(name, None)
        self.trouble(f"{name}: {first_line(error)}; the search continues without it")

    def _dispatch(self, method: str, *arguments: Any) -> None:
        """Call a method of every monitor."""
        for name, monitor in list(self._all.items()):
            try:
                getattr(monitor, method)(*arguments)
            except Exception as error:
                self._drop(name, error)

    def trial_start(self, trial: Trial) -> None:
        self._dispatch("trial_start", trial)

    def output(self, number: int, text: str, worker: str) -> None:
        self._dispatch("output", number, text, worker)

    def trial_progress(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        self._dispatch("trial_progress", trial, step, values)

    def job_start(self, number: int) -> None:
        self._dispatch("job_start", number)

    def job_progress(self, step: int, values: Mapping[str, float]) -> None:
        self._dispatch("job_progress", step, values)

    def job_end(self, error: str | None) -> None:
        self._dispatch("job_end", error)

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        self._dispatch("trial_end", trial, leaderboard)

    def tested(self, report: Mapping[str, Any], leaderboard: Leaderboard) -> None:
        self._dispatch("tested", report, leaderboard)

    def forget(self, trial: Trial, reason: str) -> None:
        self._dispatch("forget", trial, reason)

    def behind(self) -> set[int]:
        return set[int]().union(*(monitor.behind() for monitor in self._all.values()))

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        self._dispatch("close", leaderboard, phase, error)
