"""An ensemble of regressors: their mean is the prediction, half of their disagreement its uncertainty."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import Ridge

RIDGES, TREES = 6, 16
ERROR = 0.5  # the error of the mean of all members, as a share of the standard deviation of their predictions


class Ensemble:
    """Ridge regressions and randomised trees, each fitted to a bootstrap sample of the results.

    Each of the two groups is weighted by the error of the other: with out-of-bag errors e_r and e_t (mean squared,
    every row predicted only by members that were not fitted to it), the ridge regressions have the weight
    e_t / (e_r + e_t). Ridge regressions are accurate after few results, trees after many. The mean of all members is
    closer to the truth than each of them, so only half of their disagreement counts as its error.

    Args:
        encoded: ``[architectures, features]``, the evaluated architectures.
        values: ``[architectures]``, their values of one objective, higher is better.
        seed: The seed of the bootstrap samples and the trees.
    """

    def __init__(self, encoded: np.ndarray, values: np.ndarray, seed: int):
        rng = np.random.default_rng(seed)
        self.scale = float(values.std()) or 1.0
        # No value is clipped: with several objectives, what is bad in one is the other end of the front.
        self.median = float(np.median(values))
        targets = (values - self.median) / self.scale
        count = len(values)
        out_of_bag = np.zeros((RIDGES, count), dtype=bool)
        ridges = []
        for i in range(RIDGES):
            rows = rng.integers(count, size=count)
            out_of_bag[i] = ~np.isin(np.arange(count), rows)
            ridges.append(Ridge(alpha=1.0).fit(encoded[rows], targets[rows]))
        self.weights, self.biases = np.stack([r.coef_ for r in ridges]), np.array([r.intercept_ for r in ridges])
        self.trees = ExtraTreesRegressor(
            TREES, bootstrap=True, oob_score=True, min_samples_leaf=1, max_features=0.7, random_state=seed
        )
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # scikit-learn warns if every tree was fitted to some row
            self.trees.fit(encoded, targets)
        predictions = np.ma.array(self._ridge_predictions(encoded), mask=~out_of_bag).mean(0)
        tree_error = float(((self.trees.oob_prediction_ - targets) ** 2).mean())
        # With very few rows, every ridge regression may have seen all of them; then both groups count alike.
        ridge_error = float(((predictions - targets) ** 2).mean()) if out_of_bag.any() else tree_error
        total = ridge_error + tree_error
        self.ridge_share = tree_error / total if total > 1e-12 else 0.5

    def predict(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict the values of architectures.

        Args:
            encoded: ``[architectures, features]``.

        Returns:
            The mean of the members' predictions, and half of their standard deviation, ``[architectures]`` each.
        """
        ridges = self._ridge_predictions(encoded)
        # Calls the trees directly: for few rows, scikit-learn's input checks take most of the time.
        rows = encoded.astype(np.float32)
        trees = np.array([t.tree_.predict(rows)[:, 0] for t in self.trees.estimators_])
        share = self.ridge_share
        mean = share * ridges.mean(0) + (1 - share) * trees.mean(0)
        variance = share * ((ridges - mean) ** 2).mean(0) + (1 - share) * ((trees - mean) ** 2).mean(0)
        return self.median + self.scale * mean, ERROR * self.scale * np.sqrt(variance)

    def _ridge_predictions(self, encoded: np.ndarray) -> np.ndarray:
        """``[ridges, architectures]``, on the scale of the targets."""
        return self.weights @ encoded.T + self.biases[:, None]
