"""A predictor, learned from the trials so far, proposes the next one."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nas_meta import Architecture, Outcome, PluginOptions, SearchContext, Strategy
from nas_meta.core.objectives import dominates, front_ranks
from nas_meta.space.encoding import encode
from strategies.shared.mutation import mutate, neighbour, unseen_architecture
from strategies.surrogate.ensemble import Ensemble

REFIT = 0.08  # the share of new results after which the predictor is fitted again
CHANGES = (1, 1, 1, 2, 2, 3)  # how many choices of a parent a candidate differs in
POINTS = 512  # at which the hypervolume that a candidate would add is counted


class SurrogateOptions(PluginOptions):
    """Options of the surrogate."""

    startup: int | None = Field(None, ge=2, description="random ones first; by default 10, or a quarter of few trials")
    candidates: int = Field(100, ge=2, description="architectures of which the most promising is proposed")
    parents: int = Field(8, ge=1, description="the best architectures so far, of which candidates are variations")


class Surrogate(Strategy):
    """Of many variations of the best architectures, proposes the one that a predictor hopes most of.

    After BANANAS (White et al. 2021): an ensemble gives mean μ(a) and deviation σ(a) for every candidate a; what is
    hoped of it is one draw from N(μ(a), σ(a)²) (independent Thompson sampling). With several objectives it is the
    hypervolume that the draw would add to the front. Objectives that the space can count are known, not predicted.
    """

    Options = SurrogateOptions
    withdraws = True

    def __init__(self, context: SearchContext, options: SurrogateOptions | None = None):
        super().__init__(context, options)
        self.startup = self.options.startup or max(3, min(10, context.trials // 4))
        self.resolved = {"startup": self.startup}
        self._rng = np.random.default_rng(context.seed)
        self._seen: set[str] = set()
        self._architectures: list[Architecture] = []
        self._values: list[tuple[float, ...]] = []
        self._fitted, self._ensembles = 0, []

    def ask(self) -> Architecture | None:
        space = self.context.space
        if len(self._seen) < self.startup or len(self._values) < 2:
            proposal = unseen_architecture(space, self._seen, self._rng)
        else:
            proposal = self._most_promising() or unseen_architecture(space, self._seen, self._rng)
        if proposal is not None:
            self._seen.add(proposal.id)
        return proposal

    def tell(self, outcome: Outcome) -> None:
        if outcome.values is not None:
            self._architectures.append(outcome.architecture)
            self._values.append(outcome.values)

    def withdraw(self, architecture: Architecture) -> None:
        self._seen.discard(architecture.id)

    def _most_promising(self) -> Architecture | None:
        values = np.array(self._values)
        candidates = self._candidates(values)
        if not candidates:
            return None
        self._fit(values)
        encoded = encode(self.context.space, candidates)
        hopes = np.stack([e.draw(encoded, self._rng) for e in self._ensembles], axis=1)
        for i, objective in enumerate(self.context.objectives):
            known = [self.context.space.counts(a, self.context.tokens).get(objective.metric) for a in candidates]
            if None not in known:
                hopes[:, i] = objective.sign * np.array(known)
        return candidates[int(np.argmax(self._gain(hopes, values)))]

    def _candidates(self, values: np.ndarray) -> list[Architecture]:
        """Variations of the best so far, one to three choices away, and some at random; none of them seen."""
        space, rng = self.context.space, self._rng
        # Ties within a front are broken at random, so that all of it has children.
        ranks = front_ranks(values)
        order = np.lexsort((rng.random(len(values)), ranks))
        parents = [self._architectures[i] for i in order[: max(self.options.parents, int((ranks == 0).sum()))]]
        found: dict[str, Architecture] = {}
        draws = 2 * self.options.candidates
        for i, changes in zip(rng.integers(len(parents), size=draws), rng.choice(CHANGES, size=draws), strict=True):
            child = mutate(space, parents[i], rng, int(changes))
            if child is not None and child.id not in self._seen:
                found[child.id] = child
            if len(found) >= self.options.candidates:
                break
        if not found:
            near = neighbour(space, parents[0], self._seen, rng)
            found = {near.id: near} if near is not None else {}
        for _ in range(self.options.candidates // 5):
            fresh = unseen_architecture(space, {*self._seen, *found}, rng)
            if fresh is not None:
                found[fresh.id] = fresh
        return list(found.values())

    def _fit(self, values: np.ndarray) -> None:
        if self._ensembles and len(values) < self._fitted * (1 + REFIT):
            return
        encoded = encode(self.context.space, self._architectures)
        seed = int(self._rng.integers(2**31))
        self._ensembles = [Ensemble(encoded, values[:, i], seed) for i in range(values.shape[1])]
        self._fitted = len(values)

    def _gain(self, hopes: np.ndarray, values: np.ndarray) -> np.ndarray:
        """What every candidate adds: its value; of several objectives the hypervolume, counted at random points."""
        if values.shape[1] == 1:
            return hopes[:, 0]
        front = values[front_ranks(values) == 0]
        worst = np.array([
            values[:, i].min() if o.reference is None else o.sign * o.reference
            for i, o in enumerate(self.context.objectives)
        ])  # fmt: skip
        best = np.maximum(hopes.max(0), front.max(0))
        points = worst + self._rng.random((POINTS, values.shape[1])) * (best - worst)
        free = points[~(front[None] >= points[:, None]).all(-1).any(1)]
        gained = (hopes[:, None] >= free[None]).all(-1).sum(1).astype(float)
        # Where nothing adds any, at least nothing that is dominated already.
        return gained - dominates(front[None], hopes[:, None]).any(1)
