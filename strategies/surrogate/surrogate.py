"""Surrogate search: a predictor that is fitted to the finished trials chooses the next architecture."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from nas_meta import Architecture, Outcome, PluginOptions, SearchContext, Strategy
from nas_meta.core.objectives import front_ranks
from nas_meta.space.architecture import Value
from nas_meta.space.encoding import encode
from strategies.shared.unseen import completed, neighbour, unseen_architecture
from strategies.surrogate.one_objective import OneObjective
from strategies.surrogate.several_objectives import SeveralObjectives

FIRST_EVERY = 4  # with several objectives, every fourth proposal is for the first one alone, which decides the winner
CHANGES = (1, 1, 1, 2, 2, 3)  # numbers of choices in which a candidate differs from its parent; one is drawn


class SurrogateOptions(PluginOptions):
    """Options of ``surrogate``; defaults of None are derived from the budget."""

    startup: int | None = Field(
        None,
        ge=2,
        description="architectures before the predictor proposes, half of them as the space suggests and the others "
        "random; by default a quarter of the trials, 3 to 10",
    )
    candidates: int = Field(100, ge=2, description="architectures that the predictor compares for each proposal")
    parents: int = Field(
        8, ge=1, description="number of best architectures that candidates are variations of; at least the Pareto front"
    )


class Surrogate(Strategy):
    """Surrogate search: proposes the variation of the best architectures that promises the largest improvement.

    With one objective, a Gaussian process predicts it, and the candidate with the largest expected improvement is
    proposed (Jones et al. 1998). With several, an ensemble predicts them, and the candidate is proposed whose expected
    improvement of the hypervolume is largest (Emmerich et al. 2006). Every fourth proposal is for the first objective
    alone: its end of the front adds little hypervolume and would come last, but has the best trial. Objectives that
    the space counts exactly, such as ``params``, are not predicted. Proposals that are still being evaluated count as
    if they had their predicted values, and failed trials are only never repeated.
    """

    Options = SurrogateOptions
    learns = True
    withdraws = True

    def __init__(self, context: SearchContext, options: SurrogateOptions | None = None):
        super().__init__(context, options)
        self.startup = self.options.startup or max(3, min(10, context.trials // 4))
        self.resolved = {"startup": self.startup}
        self._rng = np.random.default_rng(context.seed)
        self._seen: set[str] = set()
        self._pending: dict[str, Architecture] = {}
        self._starts = deque(_spread(context.space.starts(), self.startup // 2))
        self._evaluated: list[Architecture] = []
        self._encoded: list[np.ndarray] = []  # one row per evaluated architecture
        self._values: list[tuple[float, ...]] = []
        self._first = OneObjective()
        self._several = SeveralObjectives(context, self._rng) if len(context.objectives) > 1 else None

    def ask(self) -> Architecture | None:
        space = self.context.space
        if max(len(self._seen), len(self._values)) < self.startup or len(self._values) < 2:
            proposal = self._start() or unseen_architecture(space, self._seen, self._rng)
        else:
            proposal = self._most_promising() or unseen_architecture(space, self._seen, self._rng)
        if proposal is not None:
            self._seen.add(proposal.id)
            self._pending[proposal.id] = proposal
        return proposal

    def tell(self, outcome: Outcome) -> None:
        self._pending.pop(outcome.architecture.id, None)
        self.learn(outcome)

    def learn(self, outcome: Outcome) -> None:
        if outcome.values is not None:
            self._evaluated.append(outcome.architecture)
            self._encoded.append(encode(self.context.space, [outcome.architecture])[0])
            self._values.append(outcome.values)

    def withdraw(self, architecture: Architecture) -> None:
        self._seen.discard(architecture.id)
        self._pending.pop(architecture.id, None)

    def _start(self) -> Architecture | None:
        """The next architecture that the space suggests; None if there is none left."""
        while self._starts:
            start = completed(self.context.space, self._starts.popleft(), self._seen, self._rng)
            if start is not None:
                return start
        return None

    def _most_promising(self) -> Architecture | None:
        """The candidate that promises the largest improvement; None if there are no candidates."""
        values = np.array(self._values)
        candidates = self._candidates(values)
        if not candidates:
            return None
        acquisition: OneObjective | SeveralObjectives = self._first
        if self._several is not None and len(self._seen) % FIRST_EVERY:
            acquisition = self._several
        chosen = acquisition.choose(
            self.context.space, np.stack(self._encoded), values, candidates, list(self._pending.values())
        )
        return candidates[chosen]

    def _candidates(self, values: np.ndarray) -> list[Architecture]:
        """Unseen variations of the best architectures, one to three choices away, and a few random architectures."""
        space, rng = self.context.space, self._rng
        # The whole first front has children; later fronts are filled up in random order.
        ranks = front_ranks(values)
        order = np.lexsort((rng.random(len(values)), ranks))
        parents = [self._evaluated[i] for i in order[: max(self.options.parents, int((ranks == 0).sum()))]]
        candidates: dict[str, Architecture] = {}
        draws = 2 * self.options.candidates
        for i, changes in zip(rng.integers(len(parents), size=draws), rng.choice(CHANGES, size=draws), strict=True):
            child = space.mutate(parents[i], rng, int(changes), tries=1)
            if child is not None and child.id not in self._seen:
                candidates[child.id] = child
            if len(candidates) >= self.options.candidates:
                break
        if not candidates:
            near = neighbour(space, parents[0], self._seen, rng)
            candidates = {near.id: near} if near is not None else {}
        for _ in range(self.options.candidates // 5):
            fresh = unseen_architecture(space, {*self._seen, *candidates}, rng)
            if fresh is not None:
                candidates[fresh.id] = fresh
        return list(candidates.values())


def _spread(starts: Sequence[Mapping[str, Value]], count: int) -> list[Mapping[str, Value]]:
    """Take a number of the suggestions of a space, evenly over their order."""
    positions = np.linspace(0, len(starts) - 1, min(count, len(starts))).round().astype(int)
    return [starts[i] for i in positions]
