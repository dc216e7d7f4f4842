"""The search's side of ask and tell: no architecture is tried twice, and every exchange can be replayed.

A strategy is a function of its seed and of the order of its proposals and outcomes. Its history is therefore its whole
state: to resume a search, :meth:`Proposals.replay` repeats the history to a new strategy. The history is a list of
:class:`~nas_meta.journal.records.AskTellEvent`: ``asked`` the strategy for a proposal, or ``told`` it an outcome.

Every proposal is answered by exactly one outcome, also when the strategy proposes the same architecture again. For
example, with two workers:

=========================================  ============  ==========================================
what happens                               event         note
=========================================  ============  ==========================================
the strategy proposes A                    ``asked 1``   A is new: trial 1 starts
the strategy proposes A again              ``asked 1``   no trial starts; A is owed a second outcome
the strategy proposes B                    ``asked 2``   B is new: trial 2 starts
trial 1 completes                          ``told 1``    the outcome of A is reported,
..                                         ``told 1``    once for each proposal
the strategy proposes A once more          ``asked 1``   A has ended,
..                                         ``told 1``    so its outcome is reported immediately
=========================================  ============  ==========================================

If the search is killed now, replay makes the same calls in the same order and returns ``[2]``, the trial in flight.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile

from nas_meta.core.guard import plugin_call, type_name
from nas_meta.core.objectives import Objective, signed_values
from nas_meta.errors import ConfigError, RunError, StrategyError
from nas_meta.journal.records import AskTellEvent, Trial
from nas_meta.space.architecture import Architecture
from nas_meta.strategy.protocol import WAIT, Outcome, Strategy

log = logging.getLogger(__name__)
MOST_REPEATS = 1000
ASKED, TOLD = "asked", "told"


class Proposals:
    """Asks a strategy for untried architectures and reports how their trials ended.

    Args:
        strategy: The strategy of the search.
        objectives: What the search optimises; the score of an outcome is the first one.
        trials: Every trial of the search by id; the caller keeps this mapping up to date.
    """

    def __init__(self, strategy: Strategy, objectives: Sequence[Objective], trials: Mapping[int, Trial]):
        self.strategy, self.objectives, self.trials = strategy, objectives, trials
        self._by_architecture: dict[str, int] = {}
        self._ended_ids: set[int] = set()  # trials whose outcome the strategy knows
        self._repeats: dict[int, int] = {}  # further proposals of a trial that has not ended, by id
        self._pending_events: list[AskTellEvent] = []  # not yet in the journal

    def ask(self) -> Architecture | None:
        """Return the next architecture that was not tried yet.

        The caller makes it the trial with the next id, ``len(trials) + 1``. A proposal that was tried before starts no
        trial: if its trial has ended, its outcome is reported immediately, otherwise when the trial ends.

        Returns:
            The architecture; None if the strategy has no proposal now, or after 1000 repeated proposals in a row.

        Raises:
            StrategyError: The strategy proposes something that is not an architecture of its space.
            PluginError: The strategy raises an exception.
        """
        for _ in range(MOST_REPEATS):
            proposal = self._proposal()
            if proposal is None:
                self._pending_events.append(AskTellEvent(ASKED))
                return None
            known = self._by_architecture.get(proposal.id)
            if known is None:
                number = len(self.trials) + 1
                self._by_architecture[proposal.id] = number
                self._pending_events.append(AskTellEvent(ASKED, number))
                return proposal
            self._pending_events.append(AskTellEvent(ASKED, known))
            if known in self._ended_ids:
                self._pending_events.append(AskTellEvent(TOLD, known))
                self._report(self.trials[known])
            else:
                self._repeats[known] = self._repeats.get(known, 0) + 1
        log.warning("the strategy proposed %d architectures in a row that were already tried", MOST_REPEATS)
        return None

    @contextmanager
    def events_to_write(self, ended: Trial | None = None) -> Iterator[list[AskTellEvent]]:
        """Give the events that the journal lacks to a block that writes them; they are lacking until it succeeds.

        If the write fails, for example because the disk is full, the next write includes the same events. Events after
        the proposal of a trial that could not be started are left out: a resumed search asks for that proposal again.

        Args:
            ended: A trial that :meth:`report` will report next. Its events are included, because the journal must hold
                them before the strategy learns of the outcome.

        Yields:
            The events in the order of the calls.
        """
        pending = list(takewhile(lambda e: e.trial is None or e.trial in self.trials, self._pending_events))
        yield pending if ended is None else pending + [AskTellEvent(TOLD, ended.id)] * self._proposal_count(ended)
        del self._pending_events[: len(pending)]

    def report(self, trial: Trial) -> None:
        """Report the end of a trial to the strategy, once for each time that it was proposed.

        Args:
            trial: The trial that has ended.

        Raises:
            PluginError: The strategy raises an exception.
        """
        for _ in range(self._proposal_count(trial)):
            self._report(trial)
        self._repeats.pop(trial.id, None)
        self._ended_ids.add(trial.id)

    def replay(self, events: Sequence[AskTellEvent]) -> list[int]:
        """Bring a new strategy to the state that an earlier one had, by repeating the earlier one's history.

        Args:
            events: The events of the journal, in their order. ``trials`` must hold all the trials that they name.

        Returns:
            The ids of the trials that were in flight, that is, proposed but not yet reported.

        Raises:
            RunError: The strategy does not repeat a proposal.
        """
        for event in events:
            if event.kind == TOLD:
                self._report(self.trials[event.trial])
                self._ended_ids.add(event.trial)
                self._repeats.pop(event.trial, None)
                continue
            proposal = self._proposal()
            replayed = proposal.id if proposal is not None else None
            recorded = self.trials[event.trial].architecture_id if event.trial is not None else None
            if replayed != recorded:
                raise RunError(
                    "the search cannot be resumed: its strategy does not repeat "
                    f"{f'its proposal of trial {event.trial}' if recorded else 'an answer without a proposal'}; "
                    "expected a strategy that depends only on its seed and history, in the version that started the run"
                )
            if replayed in self._by_architecture and event.trial not in self._ended_ids:
                self._repeats[event.trial] = self._repeats.get(event.trial, 0) + 1
            elif replayed is not None:
                self._by_architecture[replayed] = event.trial
        return [number for number in self._by_architecture.values() if number not in self._ended_ids]

    def _proposal(self) -> Architecture | None:
        """Return the strategy's next proposal, checked; None if it has none now.

        Raises:
            StrategyError: The proposal is not an architecture of the space.
        """
        name = type(self.strategy).__name__
        with plugin_call(self.strategy, "ask"):
            proposal = self.strategy.ask()
        if proposal is None or proposal is WAIT:
            return None
        if not isinstance(proposal, Architecture):
            raise StrategyError(f"{name}.ask() returned {type_name(proposal)}; expected an Architecture, WAIT or None")
        try:
            canonical = self.strategy.context.space.canonical(proposal.values)
        except (ConfigError, AttributeError, TypeError) as error:
            raise StrategyError(f"{name}.ask() returned an architecture that is not in the space: {error}") from error
        if canonical != proposal:
            raise StrategyError(
                f"{name}.ask() returned {proposal}, which has choices without effect; expected {canonical}"
            )
        return proposal

    def _proposal_count(self, trial: Trial) -> int:
        return 1 + self._repeats.get(trial.id, 0)

    def _report(self, trial: Trial) -> None:
        measured = trial.status in ("completed", "stopped") and all(o.metric in trial.metrics for o in self.objectives)
        values = signed_values(trial.metrics, self.objectives) if measured else None
        score = values[0] if values else None
        with plugin_call(self.strategy, "tell"):
            self.strategy.tell(Outcome(Architecture(trial.architecture), trial.status, trial.metrics, score, values))
