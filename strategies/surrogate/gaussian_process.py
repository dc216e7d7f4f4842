"""Gaussian process regression on encoded architectures: a linear trend plus a smooth deviation from it.

The covariance of the values of two architectures with the encodings x and x' is

    k(x, x') = a · (x - m)·(x' - m) / s  +  b · exp(-|x - x'|² / (2 · l · d)),

where m is the mean encoding, s the mean of |x - m|², and d the mean of |x - x'|² over pairs of results, so that the
variances a and b and the squared length l mean the same in every space. A result adds independent noise of variance c.
The logarithms of a, b, l and c maximise the marginal likelihood times normal priors (Rasmussen & Williams 2006,
equations 2.25, 2.26, 5.8 and 5.9).

Example: two equally noisy results of -1 and 1 whose covariance matrix without noise is [[1, -1], [-1, 1]] have the
weights K⁻¹y = ±1 / (2 + c). An architecture whose covariances with them are -1 and 1 has the mean 2 / (2 + c) and the
variance 1 - 2 / (2 + c): both are pulled towards the prior by the noise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

ROWS = 400  # results that a process is conditioned on at most; the cost grows with the third power
FIT_ROWS = 200  # results that hyperparameters are fitted to at most
JITTER = 1e-6  # smallest share of noise, which keeps covariance matrices positive definite
BOUND = np.log(1e4)  # hyperparameters stay within this factor of the mean of their prior
ITERATIONS = 30


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of the covariance, on the scale of standardised values.

    The defaults are the medians of their log-normal priors.

    Attributes:
        linear: The variance of the linear trend.
        smooth: The variance of the deviation from the trend.
        length: The squared length over which deviations change, relative to the mean squared distance of results.
        noise: The variance of the noise.
    """

    linear: float = 0.5
    smooth: float = 0.5
    length: float = 1.0
    noise: float = 0.02

    def logarithms(self) -> np.ndarray:
        """Return the logarithms of the hyperparameters, ``[4]``."""
        return np.log([getattr(self, f.name) for f in fields(self)])


PRIOR_MEAN = Hyperparameters().logarithms()
PRIOR_DEVIATION = np.array([1.5, 1.5, 1.0, 2.0])


class GaussianProcess:
    """A Gaussian process, conditioned on results.

    Args:
        encoded: ``[architectures, features]``, the evaluated architectures.
        values: ``[architectures]``, their values of one objective, higher is better. Of more than ``ROWS`` results, the
            better ones and a part of the others count, see :func:`informative_rows`.
        hyperparameters: The hyperparameters; by default they are fitted.
        start: Where the fit starts; by default at the medians of the priors. Fits from the last hyperparameters take
            fewer steps.

    Attributes:
        hyperparameters: The hyperparameters that are used.
    """

    def __init__(
        self,
        encoded: np.ndarray,
        values: np.ndarray,
        hyperparameters: Hyperparameters | None = None,
        start: Hyperparameters | None = None,
    ):
        rows = informative_rows(values, ROWS)
        self._x, values = encoded[rows], values[rows]
        self._centre = self._x.mean(0)
        self._offset, self._scale = float(values.mean()), float(values.std()) or 1.0
        self._targets = (values - self._offset) / self._scale
        self._norm = float(((self._x - self._centre) ** 2).sum(1).mean()) or 1.0
        # The mean over pairs of different rows follows from the mean distance to the centre.
        self._distance = 2 * self._norm * len(rows) / max(1, len(rows) - 1)
        self.hyperparameters = hyperparameters or self._fit(start or Hyperparameters())
        self._condition()

    def predict(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict the values of architectures without noise.

        Args:
            encoded: ``[architectures, features]``.

        Returns:
            The mean and the standard deviation of the posterior, ``[architectures]`` each.
        """
        h = self.hyperparameters
        products, distances = self._similarities(encoded, self._x)
        cross = h.linear * products + h.smooth * np.exp(-distances / (2 * h.length))
        mean = cross @ self._weights
        own = h.linear * ((encoded - self._centre) ** 2).sum(1) / self._norm + h.smooth
        explained = (solve_triangular(self._factor, cross.T, lower=True, check_finite=False) ** 2).sum(0)
        deviation = np.sqrt(np.maximum(own - explained, 0.0))
        return self._offset + self._scale * mean, self._scale * deviation

    def believing(self, encoded: np.ndarray) -> GaussianProcess:
        """Return the process as if architectures had the values that it predicts ("Kriging believer").

        Means stay as they are, and deviations near these architectures shrink. So proposals that are still being
        evaluated are not proposed again in slightly different form (Ginsbourger et al. 2010).

        Args:
            encoded: ``[architectures, features]``; may be empty.
        """
        if len(encoded) == 0:
            return self
        believer = object.__new__(GaussianProcess)
        believer.__dict__.update(self.__dict__)
        believer._targets = np.append(self._targets, (self.predict(encoded)[0] - self._offset) / self._scale)
        believer._x = np.concatenate([self._x, encoded])
        believer._condition()
        return believer

    def _similarities(self, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scaled products and squared distances of encodings, ``[len(one), len(other)]`` each."""
        one, other = one - self._centre, other - self._centre
        products = one @ other.T
        distances = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * products
        return products / self._norm, np.maximum(distances, 0.0) / self._distance

    def _condition(self) -> None:
        """Factorise the covariance matrix of the results and compute their weights."""
        h = self.hyperparameters
        products, distances = self._similarities(self._x, self._x)
        covariance = h.linear * products + h.smooth * np.exp(-distances / (2 * h.length))
        covariance.flat[:: len(covariance) + 1] += h.noise + JITTER * (h.linear + h.smooth)
        self._factor = cho_factor(covariance, lower=True, check_finite=False)[0]
        self._weights = cho_solve((self._factor, True), self._targets, check_finite=False)

    def _fit(self, start: Hyperparameters) -> Hyperparameters:
        """The most probable hyperparameters, by L-BFGS from a start."""
        rows = informative_rows(self._targets, FIT_ROWS)
        products, distances = self._similarities(self._x[rows], self._x[rows])
        found = minimize(
            negative_log_posterior,
            start.logarithms(),
            args=(products, distances, self._targets[rows]),
            jac=True,
            method="L-BFGS-B",
            bounds=[(m - BOUND, m + BOUND) for m in PRIOR_MEAN],
            options={"maxiter": ITERATIONS},
        )
        return Hyperparameters(*np.exp(found.x).tolist())


def negative_log_posterior(
    logarithms: np.ndarray, products: np.ndarray, distances: np.ndarray, targets: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the negative logarithm of the posterior density of hyperparameters, without constants.

    It is ½ yᵀK⁻¹y + ½ log |K| + ½ Σ ((θ - μ) / σ)², whose gradient is ½ tr((K⁻¹ - ααᵀ) ∂K/∂θ) + (θ - μ) / σ² with
    α = K⁻¹y (Rasmussen & Williams 2006, equation 5.9).

    Args:
        logarithms: ``[4]``, the logarithms θ of the hyperparameters.
        products: ``[results, results]``, scaled products of encodings.
        distances: ``[results, results]``, scaled squared distances of encodings.
        targets: ``[results]``, standardised values y.

    Returns:
        The value, and its gradient ``[4]``.
    """
    linear, smooth, length, noise = np.exp(logarithms)
    shape = np.exp(-distances / (2 * length))
    covariance = linear * products + smooth * shape
    diagonal = np.arange(len(targets))
    covariance[diagonal, diagonal] += noise + JITTER * (linear + smooth)
    factor = cho_factor(covariance, lower=True, check_finite=False)
    weights = cho_solve(factor, targets, check_finite=False)
    value = 0.5 * targets @ weights + np.log(factor[0][diagonal, diagonal]).sum()
    inner = cho_solve(factor, np.eye(len(targets)), check_finite=False) - np.outer(weights, weights)
    trace = inner[diagonal, diagonal].sum()
    smoothed = smooth * shape
    gradient = 0.5 * np.array([
        linear * ((inner * products).sum() + JITTER * trace),
        (inner * smoothed).sum() + JITTER * smooth * trace,
        (inner * smoothed * distances).sum() / (2 * length),
        noise * trace,
    ])  # fmt: skip
    deviations = (logarithms - PRIOR_MEAN) / PRIOR_DEVIATION
    return float(value + 0.5 * deviations @ deviations), gradient + deviations / PRIOR_DEVIATION


def informative_rows(values: np.ndarray, most: int) -> np.ndarray:
    """Return which results to use if there are too many: the better half of what fits, and others evenly spread.

    Example: of the values 5, 1, 4, 2, 3, 0, at most four are rows 0 and 2, the best, and of the other rows 1, 3, 4
    and 5 in their order the first and the last.

    Args:
        values: ``[results]``, higher is better.
        most: The largest number of rows to return.

    Returns:
        Indices, ascending.
    """
    if len(values) <= most:
        return np.arange(len(values))
    best = np.argsort(-values, kind="stable")[: (most + 1) // 2]
    others = np.setdiff1d(np.arange(len(values)), best)
    spread = np.linspace(0, len(others) - 1, most - len(best)).round().astype(int)
    return np.sort(np.append(best, others[spread]))


def clip_low(values: np.ndarray, spreads: float = 1.5) -> np.ndarray:
    """Return values with the very bad ones raised: they say little about what is good, and would dominate a fit.

    The lowest value that remains is the median minus a multiple of the spread of the upper half, which is the root mean
    squared difference of the values above the median from it.

    Example: of 0, 7, 8, 9, 10 the median is 8, the spread of 8, 9 and 10 from it √(5/3) ≈ 1.29, so 0 becomes
    8 - 1.94 = 6.06.

    Args:
        values: ``[results]``, higher is better.
        spreads: The multiple.

    Returns:
        ``[results]``. Nothing is raised if no value is above the median.
    """
    median = np.median(values)
    spread = float(np.sqrt(((values[values >= median] - median) ** 2).mean()))
    return np.maximum(values, median - spreads * spread) if spread > 0 else values
