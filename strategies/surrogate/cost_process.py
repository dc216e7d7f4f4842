"""Predicts a cost, such as a latency: a Gaussian process of its logarithm."""

from __future__ import annotations

import numpy as np

from strategies.surrogate.gaussian_process import GaussianProcess


class CostProcess:
    """A Gaussian process of the logarithm of a positive cost.

    Depth, width and length multiply in what a model costs, and the logarithm turns products into sums, which the linear
    trend of the process fits. If the logarithm has the mean m and the variance v, the cost has the mean
    exp(m + v / 2) and the variance (exp(v) - 1) · exp(2m + v) (log-normal distribution).

    Args:
        encoded: ``[architectures, features]``, the evaluated architectures.
        values: ``[architectures]``, minus their costs, so that higher is better; all negative.
    """

    def __init__(self, encoded: np.ndarray, values: np.ndarray):
        self._process = GaussianProcess(encoded, np.log(-values))

    def predict(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict minus the costs of architectures.

        Args:
            encoded: ``[architectures, features]``.

        Returns:
            The mean and the standard deviation, ``[architectures]`` each; the means are negative.
        """
        mean, deviation = self._process.predict(encoded)
        cost = np.exp(mean + deviation**2 / 2)
        return -cost, cost * np.sqrt(np.expm1(deviation**2))
