"""Chooses among candidates by one objective: a Gaussian process and the expected improvement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_meta import Architecture, SearchSpace
from nas_meta.space.encoding import encode
from strategies.surrogate.expected_improvement import expected_improvement
from strategies.surrogate.gaussian_process import GaussianProcess, Hyperparameters, clip_low

REFIT = 0.08  # hyperparameters are fitted again when the number of results has grown by this share


class OneObjective:
    """The largest expected improvement over the best result, as a Gaussian process predicts it.

    Very bad results are clipped (:func:`clip_low`). The best result is the largest mean of the process at the evaluated
    architectures rather than the largest value, which may owe its rank to noise.
    """

    def __init__(self) -> None:
        self._hyperparameters: Hyperparameters | None = None
        self._fitted_to = 0  # number of results that the hyperparameters were fitted to

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
            values: ``[results, objectives]``, their values, higher is better; only the first objective counts.
            candidates: Architectures to choose from.
            pending: Architectures that are being evaluated.

        Returns:
            An index into ``candidates``. Among equal improvements, the highest predicted value decides.
        """
        process = self._fit(encoded, clip_low(values[:, 0])).believing(encode(space, pending))
        best = process.predict(encoded)[0].max()
        mean, deviation = process.predict(encode(space, candidates))
        return int(np.lexsort((mean, expected_improvement(mean, deviation, best)))[-1])

    def _fit(self, encoded: np.ndarray, targets: np.ndarray) -> GaussianProcess:
        """The process of all results, with new hyperparameters if there are enough new results."""
        if self._hyperparameters is not None and len(targets) < self._fitted_to * (1 + REFIT):
            return GaussianProcess(encoded, targets, self._hyperparameters)
        process = GaussianProcess(encoded, targets, start=self._hyperparameters)
        self._hyperparameters, self._fitted_to = process.hyperparameters, len(targets)
        return process
