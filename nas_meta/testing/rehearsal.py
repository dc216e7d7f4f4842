"""Searches over a landscape, by the search's own side of ask and tell (:mod:`nas_meta.controller.proposals`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nas_meta.controller.proposals import ASKED, Proposals
from nas_meta.journal.records import AskTellEvent, Trial
from nas_meta.space.architecture import Architecture
from nas_meta.strategy.protocol import SearchContext, Strategy, Wait
from nas_meta.testing.landscapes import Landscape


class Rehearsal:
    """A search whose trials end at once, several at a time and not in the order in which they began.

    Args:
        strategy: The strategy.
        landscape: The search space of its context.
        context: The context that the strategy was made with.
        fails: Whether a trial fails, by its number.
        before_ask: Called before every proposal.

    Attributes:
        trials: Every trial by its number.
        events: The history of the strategy, as the journal of a search has it.
        ended: Numbers of the trials that have ended, in this order.
        repeats: Number of proposals that had been made before.
    """

    def __init__(
        self, strategy: Strategy, landscape: Landscape, context: SearchContext,
        fails: Callable[[int], bool] = lambda number: False, before_ask: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        self.strategy, self.landscape, self.context = strategy, landscape, context
        self.fails = fails
        self.trials: dict[int, Trial] = {}
        self.events: list[AskTellEvent] = []
        self.ended: list[int] = []
        self.repeats = 0
        self._running: list[int] = []
        self._proposals = Proposals(strategy, context.objectives, self.trials)
        ask = strategy.ask

        def counted() -> Architecture | Wait | None:
            landscape.calls = 0
            before_ask()
            try:
                return ask()
            finally:
                landscape.calls = 0

        setattr(strategy, "ask", counted)  # noqa: B010 - a method of this instance alone

    def replay(self, other: Rehearsal) -> None:
        """Take over the history of another search, as a resumed search does.

        Args:
            other: The other search, which goes no further than here.
        """
        self.trials.update(other.trials)
        self.ended = list(other.ended)
        self.events = list(other.events)
        self._running = self._proposals.replay(other.events)

    def run(self, trials: int) -> list[Trial]:
        """Run until a number of trials have ended, or until there are no proposals.

        Args:
            trials: Number of trials that have ended at the end, with those of earlier calls.

        Returns:
            All trials that have ended, in this order.
        """
        while len(self.ended) < trials:
            self._start_trials()
            if not self._running:
                break
            self._end_trial()
        return [self.trials[number] for number in self.ended]

    def architectures(self) -> list[Architecture]:
        """Return the architectures of all trials, in the order of the proposals."""
        return [Architecture(trial.architecture) for trial in self.trials.values()]

    def _start_trials(self) -> None:
        """Give every free worker a trial, as long as there are proposals and the budget lasts."""
        while len(self._running) < self.context.workers and len(self.trials) < self.context.trials:
            architecture = self._proposals.ask()
            number = len(self.trials) + 1
            if architecture is not None:
                self.trials[number] = Trial(number, architecture.values, self.context.seed, 1)
                self._running.append(number)
            self._write(None, number if architecture is not None else None)
            if architecture is None:
                return

    def _end_trial(self) -> None:
        """End one of the running trials: the oldest, the youngest or one between, in turn."""
        number = self._running.pop((2 * len(self.ended)) % len(self._running))
        trial, failed = self.trials[number], self.fails(number)
        metrics = {} if failed else self.landscape.metrics(Architecture(trial.architecture))
        self.trials[number] = replace(trial, status="failed" if failed else "completed", metrics=metrics)
        self._write(self.trials[number], None)
        self.ended.append(number)
        self._proposals.report(self.trials[number])

    def _write(self, ended: Trial | None, new: int | None) -> None:
        with self._proposals.events_to_write(ended) as events:
            self.repeats += sum(e.kind == ASKED and e.trial is not None and e.trial != new for e in events)
            self.events += events
