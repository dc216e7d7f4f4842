"""Latency predictor: a table of additive costs, fitted to the measured latencies of a few architectures.

A measurement needs an otherwise idle machine, which a searching machine is not. During a search with the objective
``latency``, the table therefore predicts it; the architectures that the search returns are measured afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_meta.space.architecture import Architecture
from nas_meta.space.encoding import encode
from nas_meta.space.search_space import SearchSpace


class LatencyTable:
    """Table with one entry for every value of every choice, and one for FLOPs if the space counts them.

    The latency of an architecture is the sum of its entries. They are fitted by ridge regression, whose strength is
    selected by leave-one-out cross-validation.

    Args:
        space: Search space of the architectures.
        architectures: Measured architectures.
        seconds: Their latencies, in seconds.
        tokens: Tokens of the text for which FLOPs are counted.
        metric: Name of the latency, which depends on the form of the model.

    Attributes:
        error: Mean absolute error relative to the latency, by cross-validation with up to 8 folds.
        fastest: The lowest measured latency, in seconds.
    """

    def __init__(
        self, space: SearchSpace, architectures: Sequence[Architecture], seconds: Sequence[float], tokens: int,
        metric: str = "latency",
    ):  # fmt: skip
        from sklearn.linear_model import RidgeCV
        from sklearn.model_selection import cross_val_predict

        self.space, self.tokens, self.metric = space, tokens, metric
        self._max_flops = max([self._flops(a) for a in architectures]) or 1.0
        rows, target = self._rows(architectures), np.asarray(seconds)
        self._scale = float(target.mean())
        ridge = RidgeCV(alphas=np.logspace(-3, 2, 16))
        folds = min(len(target), 8)
        left_out = cross_val_predict(ridge, rows, target / self._scale, cv=folds) * self._scale
        self.error = float(np.mean(np.abs(left_out - target) / target))
        self.fastest = float(target.min())
        self._ridge = ridge.fit(rows, target / self._scale)

    def predict(self, architecture: Architecture) -> float:
        """Predict the latency of an architecture.

        Args:
            architecture: Any architecture of the space.

        Returns:
            Seconds; at least half of the lowest measured latency.
        """
        predicted = float(self._ridge.predict(self._rows([architecture]))[0]) * self._scale
        return max(predicted, self.fastest / 2)

    def _rows(self, architectures: Sequence[Architecture]) -> np.ndarray:
        # Scaled by 10, because FLOPs explain most of the latency and the ridge penalty should spare their weight.
        flops = np.array([[10 * self._flops(a) / self._max_flops] for a in architectures])
        return np.hstack([encode(self.space, architectures), flops])

    def _flops(self, architecture: Architecture) -> float:
        return float(self.space.counts(architecture, self.tokens).get("flops", 0.0))
