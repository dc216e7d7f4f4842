"""Predicts a cost, such as a latency: a Gaussian process of its logarithm."""

from __future__ import annotations

import numpy as np

from strategies.surrogate.gaussian_process import GaussianProcess


class CostProcess:
    """A Gaussian process of the logarithm of a positive cost.

    Depth, width and length multiply in what a model costs, and the logarithm turns products into sums, which the linear
    trend of the process fits. If the logarithm has the mean m, the cost is taken to be exp(m), its median, without
    uncertainty: a cost depends on the architecture alone and is soon predicted well, and while it is not, its large
    upper tail would make the search explore costs rather than accuracies.

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
            The costs with a negative sign and their standard deviations, which are 0, ``[architectures]`` each.
        """
        cost = np.exp(self._process.predict(encoded)[0])
        return -cost, np.zeros_like(cost)
