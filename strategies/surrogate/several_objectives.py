"""Chooses among candidates by several objectives: predictors of each, and the expected hypervolume improvement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_meta import Architecture, Objective, SearchContext, SearchSpace
from nas_meta.core.objectives import dominates, pareto_front
from nas_meta.space.encoding import encode
from strategies.shared.pareto_selection import select_best
from strategies.surrogate.cost_process import CostProcess
from strategies.surrogate.ensemble import Ensemble
from strategies.surrogate.hypervolume_improvement import expected_hypervolume_improvement

REFIT = 0.08  # predictors are fitted again when the number of results has grown by this share
BOXES = 4000  # about the largest number of boxes that the space above the front is divided into


class SeveralObjectives:
    """The largest expected improvement of the hypervolume of the Pareto front.

    Objectives that the space counts exactly are known. Costs, which are minimised and positive, are predicted by
    :class:`CostProcess`, all others by an :class:`Ensemble`.

    Args:
        context: Objectives of the search, and the number of tokens for which the space counts FLOPs.
        rng: The source of randomness of the ensembles.
    """

    def __init__(self, context: SearchContext, rng: np.random.Generator):
        self._objectives, self._tokens, self._rng = context.objectives, context.tokens, rng
        self._predictors: dict[int, Ensemble | CostProcess] = {}  # by the index of the objective
        self._fitted_to = 0  # number of results that the predictors were fitted to

    def choose(
        self,
        space: SearchSpace,
        encoded: np.ndarray,
        values: np.ndarray,
        candidates: Sequence[Architecture],
        pending: Sequence[Architecture],
    ) -> int:
        """Return the index of the most promising candidate.

        Args:
            space: The search space.
            encoded: ``[results, features]``, the evaluated architectures.
            values: ``[results, objectives]``, their values, higher is better.
            candidates: Architectures to choose from.
            pending: Architectures that are being evaluated; they extend the front by their predicted values.

        Returns:
            An index into ``candidates``. Among equal improvements, those are preferred whose predicted values the front
            does not dominate.
        """
        if len(values) >= self._fitted_to * (1 + REFIT):
            self._predictors, self._fitted_to = {}, len(values)
        mean, deviation = self._predict(space, encoded, values, [*candidates, *pending])
        front = np.concatenate([values, mean[len(candidates) :]])
        front = front[pareto_front(front)]
        mean, deviation = mean[: len(candidates)], deviation[: len(candidates)]
        worst = np.array([_reference(o, column) for o, column in zip(self._objectives, values.T, strict=True)])
        scale = np.maximum(front.max(0) - worst, 1e-12 * np.maximum(1.0, np.abs(worst)))
        dominated = dominates(front[None], mean[:, None]).any(1)
        if len(self._objectives) > 2:
            # The number of boxes grows with this power of the number of rows; the rows that are kept are well spread.
            front = front[select_best(front, int(BOXES ** (1 / (len(self._objectives) - 1))))]
        gain = expected_hypervolume_improvement(
            (mean - worst) / scale, deviation / scale, (front - worst) / scale, np.zeros(len(worst))
        )
        return int(np.lexsort((~dominated, gain))[-1])

    def _predict(
        self, space: SearchSpace, encoded: np.ndarray, values: np.ndarray, architectures: Sequence[Architecture]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations of all objectives, ``[architectures, objectives]`` each."""
        new = encode(space, architectures)
        counts = [space.counts(a, self._tokens) for a in architectures]
        columns = []
        for i, objective in enumerate(self._objectives):
            if all(objective.metric in c for c in counts):
                exact = objective.sign * np.array([c[objective.metric] for c in counts], dtype=float)
                columns.append((exact, np.zeros(len(exact))))
            else:
                columns.append(self._predictor(i, encoded, values[:, i]).predict(new))
        means, deviations = zip(*columns, strict=True)
        return np.stack(means, axis=1), np.stack(deviations, axis=1)

    def _predictor(self, i: int, encoded: np.ndarray, values: np.ndarray) -> Ensemble | CostProcess:
        """The predictor of an objective, fitted if there is none."""
        if i not in self._predictors:
            is_cost = self._objectives[i].direction == "minimize" and bool((values < 0).all())
            self._predictors[i] = (
                CostProcess(encoded, values) if is_cost else Ensemble(encoded, values, int(self._rng.integers(2**31)))
            )
        return self._predictors[i]


def _reference(objective: Objective, values: np.ndarray) -> float:
    """The value from which the hypervolume is measured: the reference of the objective, or the worst result."""
    return float(values.min()) if objective.reference is None else objective.sign * objective.reference
