"""Surrogate search: a predictor that is fitted to the finished trials chooses the next architecture."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nas_meta import Architecture, Outcome, PluginOptions, SearchContext, Strategy
from nas_meta.core.objectives import dominates, front_ranks
from nas_meta.space.encoding import encode
from strategies.shared.mutation import mutate, neighbour, unseen_architecture
from strategies.surrogate.ensemble import Ensemble

REFIT = 0.08  # the predictor is fitted again when the number of results has grown by this share
CHANGES = (1, 1, 1, 2, 2, 3)  # numbers of choices in which a candidate differs from its parent; one is drawn
POINTS = 512  # random points that estimate the hypervolume added by a candidate


class SurrogateOptions(PluginOptions):
    """Options of ``surrogate``; defaults of None are derived from the budget."""

    startup: int | None = Field(
        None,
        ge=2,
        description="random architectures before the predictor proposes; by default a quarter of the trials, 3 to 10",
    )
    candidates: int = Field(100, ge=2, description="architectures that the predictor compares for each proposal")
    parents: int = Field(
        8, ge=1, description="number of best architectures that candidates are variations of; at least the Pareto front"
    )


class Surrogate(Strategy):
    """Surrogate search: proposes the variation of the best architectures that a predictor finds most promising.

    After BANANAS (White et al. 2021): an ensemble predicts the mean μ(a) and the deviation σ(a) of every candidate a,
    and the candidate with the largest draw from N(μ(a), σ(a)²) is proposed (independent Thompson sampling). With
    several objectives, it is the candidate whose draws add most hypervolume to the Pareto front. Objectives that the
    space counts exactly, such as ``params``, are not predicted.
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
        self._ensembles: list[Ensemble] = []  # one per objective
        self._fitted_to = 0  # number of results that the ensembles were fitted to

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
        """The candidate with the largest acquisition value; None if there are no candidates."""
        values = np.array(self._values)
        candidates = self._candidates(values)
        if not candidates:
            return None
        self._fit(values)
        encoded = encode(self.context.space, candidates)
        draws = np.stack([e.draw(encoded, self._rng) for e in self._ensembles], axis=1)
        for i, objective in enumerate(self.context.objectives):
            exact = [self.context.space.counts(a, self.context.tokens).get(objective.metric) for a in candidates]
            if None not in exact:
                draws[:, i] = objective.sign * np.array(exact)
        return candidates[int(np.argmax(self._acquisition(draws, values)))]

    def _candidates(self, values: np.ndarray) -> list[Architecture]:
        """Unseen variations of the best architectures, one to three choices away, and a few random architectures."""
        space, rng = self.context.space, self._rng
        # The whole first front has children; later fronts are filled up in random order.
        ranks = front_ranks(values)
        order = np.lexsort((rng.random(len(values)), ranks))
        parents = [self._architectures[i] for i in order[: max(self.options.parents, int((ranks == 0).sum()))]]
        candidates: dict[str, Architecture] = {}
        draws = 2 * self.options.candidates
        for i, changes in zip(rng.integers(len(parents), size=draws), rng.choice(CHANGES, size=draws), strict=True):
            child = mutate(space, parents[i], rng, int(changes))
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

    def _fit(self, values: np.ndarray) -> None:
        """Fit the ensembles again if there are enough new results."""
        if self._ensembles and len(values) < self._fitted_to * (1 + REFIT):
            return
        encoded = encode(self.context.space, self._architectures)
        seed = int(self._rng.integers(2**31))
        self._ensembles = [Ensemble(encoded, values[:, i], seed) for i in range(values.shape[1])]
        self._fitted_to = len(values)

    def _acquisition(self, draws: np.ndarray, values: np.ndarray) -> np.ndarray:
        """How promising each candidate is, ``[candidates]``, from draws ``[candidates, objectives]``.

        With one objective, the draw itself. With several, the hypervolume that the draw adds to the front, estimated by
        Monte Carlo: of random points between the worst and the best values, those count that the candidate dominates
        and the front does not.
        """
        if values.shape[1] == 1:
            return draws[:, 0]
        front = values[front_ranks(values) == 0]
        worst = np.array([
            values[:, i].min() if o.reference is None else o.sign * o.reference
            for i, o in enumerate(self.context.objectives)
        ])  # fmt: skip
        best = np.maximum(draws.max(0), front.max(0))
        points = worst + self._rng.random((POINTS, values.shape[1])) * (best - worst)
        free = points[~(front[None] >= points[:, None]).all(-1).any(1)]
        gained = (draws[:, None] >= free[None]).all(-1).sum(1).astype(float)
        # If no candidate adds hypervolume, candidates that the front does not dominate are preferred.
        return gained - dominates(front[None], draws[:, None]).any(1)
