"""Kept regressors together: what they agree on is the prediction, what they differ in its uncertainty."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import Ridge

RIDGES, TREES = 6, 16


class Ensemble:
    """Ridge regressions and randomised trees on resampled rows; each half weighs by its error on left-out rows.

    Args:
        encoded: ``[architectures, features]``.
        values: ``[architectures]``, more is better.
    """

    def __init__(self, encoded: np.ndarray, values: np.ndarray, seed: int):
        rng = np.random.default_rng(seed)
        self.mean, self.scale = float(values.mean()), float(values.std()) or 1.0
        # The worst results say little about the best: what lies far below is drawn near.
        targets = np.maximum((values - np.median(values)) / self.scale, -1.5)
        self.middle = float(np.median(values))
        count = len(values)
        left_out = np.zeros((RIDGES, count), dtype=bool)
        ridges = []
        for i in range(RIDGES):
            rows = rng.integers(count, size=count)
            left_out[i] = ~np.isin(np.arange(count), rows)
            ridges.append(Ridge(alpha=1.0).fit(encoded[rows], targets[rows]))
        self.weights, self.biases = np.stack([r.coef_ for r in ridges]), np.array([r.intercept_ for r in ridges])
        self.trees = ExtraTreesRegressor(
            TREES, bootstrap=True, oob_score=True, min_samples_leaf=1, max_features=0.7, random_state=seed
        )
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a row that no tree left out
            self.trees.fit(encoded, targets)
        predictions = np.ma.array(self._lines(encoded), mask=~left_out).mean(0)
        grown = float(((self.trees.oob_prediction_ - targets) ** 2).mean())
        # Of so few rows that none was ever left out, nothing is known.
        linear = float(((predictions - targets) ** 2).mean()) if left_out.any() else grown
        self.linear_share = grown / (linear + grown) if linear + grown > 1e-12 else 0.5

    def predict(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, ``[architectures]`` each."""
        ridges = self._lines(encoded)
        # Each tree itself: what scikit-learn checks before is most of the time of so few rows.
        rows = encoded.astype(np.float32)
        trees = np.array([t.tree_.predict(rows)[:, 0] for t in self.trees.estimators_])
        share = self.linear_share
        mean = share * ridges.mean(0) + (1 - share) * trees.mean(0)
        variance = share * ((ridges - mean) ** 2).mean(0) + (1 - share) * ((trees - mean) ** 2).mean(0)
        return self.middle + self.scale * mean, self.scale * np.sqrt(variance)

    def _lines(self, encoded: np.ndarray) -> np.ndarray:
        """``[ridges, architectures]``."""
        return self.weights @ encoded.T + self.biases[:, None]

    def draw(self, encoded: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One draw for every architecture."""
        mean, deviation = self.predict(encoded)
        return rng.normal(mean, deviation)
