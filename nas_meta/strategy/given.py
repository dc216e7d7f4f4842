"""A strategy that begins with what the user gives it: results of an earlier run, and architectures to try first."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas_meta.core.objectives import Objective, signed_values
from nas_meta.space.architecture import Architecture, Value
from nas_meta.strategy.protocol import Adapted, Job, Outcome, Strategy, Wait

if TYPE_CHECKING:
    import numpy as np

    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.tasks.pool import Pool

Known = tuple[Mapping[str, Value], Mapping[str, float]]


class GivenFirst(Strategy):
    """Proposes given architectures before those of another strategy, which first learns from given results.

    Invariant: proposals stay a function of the seed and of the order of the calls, because the journal has both lists.
    The other strategy learns from the given architectures once their trials have ended.

    Args:
        strategy: The strategy that proposes afterwards.
        enqueued: Architectures to propose first, in this order.
        known: Results that the strategy learns from before its first proposal.
    """

    def __init__(self, strategy: Strategy, enqueued: Sequence[Architecture], known: Sequence[Outcome]):
        super().__init__(strategy.context, strategy.options)
        self.strategy, self.resolved = strategy, strategy.resolved
        self.withdraws, self.learns = False, strategy.learns
        self._enqueued, self._known = deque(enqueued), deque(known)
        self._own: Counter[str] = Counter()  # enqueued architectures that were proposed, until their trial has ended

    def ask(self) -> Architecture | Wait | None:
        while self._known:
            self.strategy.learn(self._known.popleft())
        if self._enqueued:
            architecture = self._enqueued.popleft()
            self._own[architecture.id] += 1
            return architecture
        return self.strategy.ask()

    def tell(self, outcome: Outcome) -> None:
        if self._own[outcome.architecture.id]:
            self._own[outcome.architecture.id] -= 1
            self.strategy.learn(outcome)
        else:
            self.strategy.tell(outcome)

    def job(self) -> Job | None:
        return self.strategy.job()

    def receive(self, findings: Mapping[str, Any], weights: np.ndarray | None) -> None:
        self.strategy.receive(findings, weights)

    def start_of(self, architecture: Architecture) -> np.ndarray | None:
        return self.strategy.start_of(architecture)

    def trial_steps(self, steps: int) -> int:
        return self.strategy.trial_steps(steps)

    def adapted(self, evaluation: Evaluation, pool: Pool, support: Sequence[np.ndarray]) -> Adapted | None:
        return self.strategy.adapted(evaluation, pool, support)

    def close(self) -> None:
        self.strategy.close()


def with_given(strategy: Strategy, enqueued: Sequence[Mapping[str, Value]], known: Sequence[Known]) -> Strategy:
    """Let a strategy begin with given architectures and results.

    Args:
        strategy: The strategy.
        enqueued: Architectures to propose first, as plain data.
        known: Results as plain data: pairs of an architecture and its metrics.

    Returns:
        The strategy that begins with them; the strategy itself if there are none.
    """
    if not enqueued and not known:
        return strategy
    outcomes = [_outcome(result, strategy.context.objectives) for result in known]
    return GivenFirst(strategy, [Architecture(values) for values in enqueued], outcomes)


def _outcome(result: Known, objectives: Sequence[Objective]) -> Outcome:
    """Return a result in the form in which strategies learn from it."""
    values, metrics = result
    measured = all(o.metric in metrics for o in objectives)
    scores = signed_values(metrics, objectives) if measured else None
    return Outcome(Architecture(values), "completed", metrics, scores[0] if scores else None, scores)
