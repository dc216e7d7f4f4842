"""The strategy as a search speaks to it: nothing is tried twice, and what is said can be said again to a new strategy.

A strategy is a function of its seed and of what it was asked and told, in that order. So its history is all of its
state: a resumed search says the same to a strategy made anew (:meth:`Proposals.replay`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

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
    """Asks for architectures and tells how their trials ended; one that was tried already is answered at once.

    Args:
        trials: every trial of the search by id, as it stands; the search keeps it up to date.
    """

    def __init__(self, strategy: Strategy, objectives: Sequence[Objective], trials: Mapping[int, Trial]):
        self.strategy, self.objectives, self.trials = strategy, objectives, trials
        self._by_architecture: dict[str, int] = {}
        self._told: set[int] = set()
        self._repeats: dict[int, int] = {}
        self._said: list[AskTellEvent] = []

    def ask(self) -> Architecture | None:
        """The next architecture that was not tried, for a trial of the next id; None if there is none right now."""
        for _ in range(MOST_REPEATS):
            proposal = self._proposal()
            if proposal is None:
                self._said.append(AskTellEvent(ASKED))
                return None
            known = self._by_architecture.get(proposal.id)
            if known is None:
                number = len(self.trials) + 1
                self._by_architecture[proposal.id] = number
                self._said.append(AskTellEvent(ASKED, number))
                return proposal
            self._said.append(AskTellEvent(ASKED, known))
            if known in self._told:
                self._said.append(AskTellEvent(TOLD, known))
                self._tell(self.trials[known])
            else:
                self._repeats[known] = self._repeats.get(known, 0) + 1
        log.warning("the strategy proposed %d architectures in a row that were tried before", MOST_REPEATS)
        return None

    def said(self, ended: Trial | None = None) -> list[AskTellEvent]:
        """What was said since the last call, for the journal; also what :meth:`tell` will say of a trial."""
        said, self._said = self._said, []
        return said if ended is None else said + [AskTellEvent(TOLD, ended.id)] * self._times(ended)

    def tell(self, trial: Trial) -> None:
        """A trial has ended: told once for every time that it was proposed."""
        for _ in range(self._times(trial)):
            self._tell(trial)
        self._repeats.pop(trial.id, None)
        self._told.add(trial.id)

    def replay(self, said: Sequence[AskTellEvent]) -> list[int]:
        """Says to a new strategy what was said to an earlier one; returns the trials that were in flight at the end.

        Raises:
            RunError: the strategy proposes something else than it did then.
        """
        for entry in said:
            if entry.kind == TOLD:
                self._tell(self.trials[entry.trial])
                self._told.add(entry.trial)
                self._repeats.pop(entry.trial, None)
                continue
            proposal = self._proposal()
            now = proposal.id if proposal is not None else None
            then = self.trials[entry.trial].architecture_id if entry.trial is not None else None
            if now != then:
                raise RunError(
                    f"the search cannot go on: its strategy does not propose again what it proposed for "
                    f"{f'trial {entry.trial}' if then else 'a free worker'}; expected a strategy that follows from its "
                    "seed, in the version that the run began with"
                )
            if now in self._by_architecture and entry.trial not in self._told:
                self._repeats[entry.trial] = self._repeats.get(entry.trial, 0) + 1
            elif now is not None:
                self._by_architecture[now] = entry.trial
        return [number for number in self._by_architecture.values() if number not in self._told]

    def _proposal(self) -> Architecture | None:
        """What the strategy proposes: an architecture of the space, or nothing right now.

        Raises:
            StrategyError: it is something else.
        """
        name = type(self.strategy).__name__
        with plugin_call(self.strategy, "ask"):
            proposal = self.strategy.ask()
        if proposal is None or proposal is WAIT:
            return None
        if not isinstance(proposal, Architecture):
            raise StrategyError(f"{name}.ask() returned {type_name(proposal)}; expected an Architecture, WAIT or None")
        try:
            own = self.strategy.context.space.canonical(proposal.values)
        except (ConfigError, AttributeError, TypeError) as error:
            raise StrategyError(f"{name}.ask() returned an architecture that is not in the space: {error}") from error
        if own != proposal:
            raise StrategyError(f"{name}.ask() returned {proposal}, which has choices without effect; expected {own}")
        return proposal

    def _times(self, trial: Trial) -> int:
        return 1 + self._repeats.get(trial.id, 0)

    def _tell(self, trial: Trial) -> None:
        measured = trial.status in ("completed", "stopped") and all(o.metric in trial.metrics for o in self.objectives)
        values = signed_values(trial.metrics, self.objectives) if measured else None
        score = values[0] if values else None
        with plugin_call(self.strategy, "tell"):
            self.strategy.tell(Outcome(Architecture(trial.architecture), trial.status, trial.metrics, score, values))
