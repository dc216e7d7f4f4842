"""What latency an architecture has, told from a table that was fitted to a few measured ones.

Measuring takes a machine that does nothing else, which a search is not: so during a search the table stands in where
``latency`` is an objective, and what comes out of the search is measured afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_meta.space.architecture import Architecture
from nas_meta.space.encoding import encode
from nas_meta.space.search_space import SearchSpace


class LatencyTable:
    """An entry for every value of every choice (so for every layer), and one for FLOPs where the space counts them.

    The latency of an architecture is the sum of its entries. They are fitted by ridge regression, its strength chosen
    by leave-one-out.

    Attributes:
        error: mean absolute error of left-out models, as a share of their latency.
    """

    def __init__(
        self, space: SearchSpace, architectures: Sequence[Architecture], seconds: Sequence[float], tokens: int
    ):
        from sklearn.linear_model import RidgeCV
        from sklearn.model_selection import cross_val_predict

        self.space, self.tokens = space, tokens
        self._most = max([self._flops(a) for a in architectures]) or 1.0
        rows, target = self._rows(architectures), np.asarray(seconds)
        self._scale = float(target.mean())
        ridge = RidgeCV(alphas=np.logspace(-3, 2, 16))
        folds = min(len(target), 8)
        left_out = cross_val_predict(ridge, rows, target / self._scale, cv=folds) * self._scale
        self.error = float(np.mean(np.abs(left_out - target) / target))
        self.fastest = float(target.min())
        self._ridge = ridge.fit(rows, target / self._scale)

    def predict(self, architecture: Architecture) -> float:
        """Seconds; never below half of the fastest model that was measured."""
        told = float(self._ridge.predict(self._rows([architecture]))[0]) * self._scale
        return max(told, self.fastest / 2)

    def _rows(self, architectures: Sequence[Architecture]) -> np.ndarray:
        # A column of FLOPs weighs as much as ten choices: most of the time is theirs.
        flops = np.array([[10 * self._flops(a) / self._most] for a in architectures])
        return np.hstack([encode(self.space, architectures), flops])

    def _flops(self, architecture: Architecture) -> float:
        return float(self.space.counts(architecture, self.tokens).get("flops", 0.0))
