"""A simple regression from choices to an objective, for architectures that no trial has measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LEAST = 10  # results; with fewer there is nothing to learn from
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # λ, chosen by the leave-one-out error


class Predictor:
    """Ridge regression on one feature per choice and value: the effects of choices add up.

    With features X, centred values y and H = XXᵀ(XXᵀ + λI)⁻¹, the prediction for a result that is left out differs from
    its value by (y - Hy) / (1 - diag H), which needs no second fit.

    Args:
        architectures: The measured architectures, at least :data:`LEAST`.
        values: ``[architectures]``, their values.

    Attributes:
        error: Mean absolute error on results that were left out of the fit.
    """

    def __init__(self, architectures: Sequence[Mapping[str, Any]], values: np.ndarray):
        pairs = {pair for architecture in architectures for pair in _pairs(architecture)}
        self._feature = {pair: i for i, pair in enumerate(sorted(pairs, key=repr))}
        x = self._encoded(architectures)
        self._centre, self._mean = x.mean(0), float(values.mean())
        x, y = x - self._centre, values - self._mean
        left, scales, right = np.linalg.svd(x, full_matrices=False)
        projected, best = left.T @ y, np.inf
        for ridge in RIDGES:
            kept = scales**2 / (scales**2 + ridge)
            own = np.minimum((left**2) @ kept + 1 / len(y), 1 - 1e-9)  # with the mean's share
            wrong = np.abs((y - left @ (kept * projected)) / (1 - own))
            if (wrong**2).mean() < best:
                best, self.error = (wrong**2).mean(), float(wrong.mean())
                self._weights = right.T @ (scales / (scales**2 + ridge) * projected)

    def predict(self, architectures: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Predict the values of architectures; choices and values that no result has are ignored.

        Args:
            architectures: Values by choice, one mapping per architecture.

        Returns:
            ``[architectures]``.
        """
        return self._mean + (self._encoded(architectures) - self._centre) @ self._weights

    def _encoded(self, architectures: Sequence[Mapping[str, Any]]) -> np.ndarray:
        encoded = np.zeros((len(architectures), len(self._feature)))
        for row, architecture in enumerate(architectures):
            for pair in _pairs(architecture):
                if pair in self._feature:
                    encoded[row, self._feature[pair]] = 1
        return encoded


def _pairs(architecture: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    return [(name, type(value).__name__, value) for name, value in architecture.items()]
