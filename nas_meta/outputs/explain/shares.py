"""How much every support example contributes to a score, in closed form.

For a query q and the class k, with embeddings z_i of the support examples, û = u / |u|, and n_k examples of class k:

- prototypes, Euclidean: -s|q - c_k|² = -s|q|² + Σ_{i in k} (s / n_k) · (2 q·z_i - z_i·c_k), where c_k is the mean of
  the z_i of class k. The first term is the same for every class. With ``normalize``, q and z_i have unit norm;
- prototypes, cosine: τ · cos(q, c_k) = Σ_{i in k} τ · q̂·z_i / (n_k · |c_k|);
- ridge: α q̂·w_k + β = β + Σ_i α · (q̂·ẑ_i) · a_ik with the dual weights a = (ẐẐᵀ + λI)⁻¹Y. Examples of other classes
  contribute, too;
- attention: the probability of class k is Σ_{i in k} softmax_i(s · cos(q, z_i)), so that the score is a probability.

All of them are exact: the contributions and the constant sum to the score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_meta.learners.balancing import balanced_rows
from nas_meta.learners.open_set import unit
from nas_meta.outputs.onnx.comparison import ATTENTION, RIDGE, class_means

LOGIT, PROBABILITY = "logit", "probability"


@dataclass(frozen=True)
class Contributions:
    """The score of a class as a sum over the support examples.

    Attributes:
        score: What is explained: ``logit`` or ``probability``.
        of: ``[S]``, the contribution of every support example.
        constant: What no example contributes.
        formula: The contribution of an example, in words.
    """

    score: str
    of: np.ndarray
    constant: float
    formula: str

    @property
    def total(self) -> float:
        """The score."""
        return float(self.of.sum() + self.constant)

    @property
    def shares(self) -> np.ndarray:
        """``[S]``, contributions as shares of the sum of their absolute values; negative ones speak against it."""
        return self.of / max(float(np.abs(self.of).sum()), 1e-12)


def contributions(
    comparison: Mapping[str, Any], support: np.ndarray, labels: np.ndarray, ways: int, query: np.ndarray, target: int
) -> Contributions:
    """Compute the contribution of every support example to the score of a class.

    Args:
        comparison: How the learner compares embeddings; see :mod:`nas_meta.outputs.onnx.comparison`.
        support: ``[S, D]`` embeddings.
        labels: ``[S]``, the class of each; every class occurs.
        ways: N, the number of classes.
        query: ``[D]``, the embedding of the text.
        target: Index of the class.

    Returns:
        The contributions.
    """
    support, query = support.astype(np.float64), query.astype(np.float64)
    scale = comparison["scale"]
    if comparison["kind"] == RIDGE:
        z = unit(support)
        targets = (labels == target).astype(np.float64)
        dual = np.linalg.solve(z @ z.T + comparison["ridge"] * np.eye(len(z)), targets)
        formula = "factor × cosine of text and example × dual weight of the example"
        return Contributions(LOGIT, scale * (z @ unit(query)) * dual, float(comparison["bias"]), formula)
    if comparison["kind"] == ATTENTION:
        rows = balanced_rows(labels, ways)
        scores = scale * (unit(support[rows]) @ unit(query))
        attention = np.exp(scores - scores.max())
        attention /= attention.sum()
        of = np.zeros(len(labels))
        np.add.at(of, rows[target], attention[target])
        return Contributions(PROBABILITY, of, 0.0, "attention of the text to the example")
    own = (labels == target).astype(np.float64)
    own /= own.sum()
    if comparison["distance"] == "cosine":
        prototype = class_means(support, own[:, None])[0]
        length = max(float(np.linalg.norm(prototype)), 1e-12)
        formula = "temperature × product of text and example ÷ (examples of the class × length of their mean)"
        return Contributions(LOGIT, scale * own * (support @ unit(query)) / length, 0.0, formula)
    if comparison["normalize"]:
        support, query = unit(support), unit(query)
    prototype = own @ support
    of = scale * own * (2 * support @ query - support @ prototype)
    formula = "factor ÷ examples of the class × (2 × product of text and example - product of example and class mean)"
    return Contributions(LOGIT, of, float(-scale * (query @ query)), formula)
