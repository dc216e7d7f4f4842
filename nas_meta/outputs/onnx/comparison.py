"""Comparing embeddings without torch: the evaluation of the learners that adapt in closed form.

A comparison is plain data, so that it fits into ``onnx.json``:

- ``{"kind": "prototypes", "distance": "euclidean" | "cosine", "normalize": bool, "scale": s}``, see
  :mod:`nas_meta.learners.protonet`;
- ``{"kind": "attention", "scale": s}``, see :mod:`nas_meta.learners.matching`;
- ``{"kind": "ridge", "ridge": λ, "scale": α, "bias": β}``, see :mod:`nas_meta.learners.ridge`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nas_meta.errors import ConfigError
from nas_meta.learners.balancing import balanced_rows
from nas_meta.learners.open_set import unit

PROTOTYPES, ATTENTION, RIDGE = "prototypes", "attention", "ridge"
NUMBERS = {PROTOTYPES: ("scale",), ATTENTION: ("scale",), RIDGE: ("ridge", "scale", "bias")}
SUPPORT_WEIGHT, STEPS = 3.0, 10  # of the refinement, as in ProtoNet.refined


def check_comparison(comparison: Mapping[str, Any], learner: str, file: str) -> None:
    """Check that a comparison can be computed.

    Args:
        comparison: What ``onnx.json`` says.
        learner: Name of the learner, for error messages.
        file: Name of the file, for error messages.

    Raises:
        ConfigError: The kind is not known, or a number is missing.
    """
    kind = comparison.get("kind")
    if kind not in NUMBERS:
        raise ConfigError(
            f"{file}: the learner '{learner}' compares embeddings by {kind!r}; expected one of {', '.join(NUMBERS)}, "
            "or a newer nas-meta"
        )
    numbers = [comparison.get(name) for name in NUMBERS[kind]]
    words = kind != PROTOTYPES or (
        comparison.get("distance") in ("euclidean", "cosine") and isinstance(comparison.get("normalize"), bool)
    )
    if not words or not all(type(n) in (int, float) for n in numbers):
        raise ConfigError(
            f"{file}: the comparison of the learner '{learner}' is incomplete; expected what 'nas-meta export "
            "--format onnx' wrote"
        )


def compare(
    comparison: Mapping[str, Any], support: np.ndarray, labels: np.ndarray, ways: int, queries: np.ndarray,
    unlabelled: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Compute the logits of query embeddings.

    Args:
        comparison: A valid comparison.
        support: ``[S, D]`` embeddings.
        labels: ``[S]``, the class of each, from 0 to ``ways`` - 1; every class occurs.
        ways: N, the number of classes.
        queries: ``[M, D]`` embeddings.
        unlabelled: ``[U, D]`` embeddings that refine prototypes; None without any.

    Returns:
        ``[M, N]``.
    """
    scale = comparison["scale"]
    if comparison["kind"] == RIDGE:
        z, y = unit(support), np.eye(ways, dtype=support.dtype)[labels]
        gram = z @ z.T
        weights = z.T @ np.linalg.solve(gram + comparison["ridge"] * np.eye(len(gram), dtype=z.dtype), y)
        return scale * unit(queries) @ weights + comparison["bias"]
    if comparison["kind"] == ATTENTION:
        rows = balanced_rows(labels, ways)
        scores = (scale * unit(queries) @ unit(support[rows.ravel()]).T).reshape(len(queries), *rows.shape)
        highest = scores.max((1, 2), keepdims=True)
        return np.log(np.exp(scores - highest).sum(2)) + highest[:, :, 0]  # a constant per query does not matter
    hard = np.eye(ways, dtype=support.dtype)[labels]
    prototypes = class_means(_features(comparison, support), hard)
    if unlabelled is not None:
        prototypes = _refined(comparison, support, hard, prototypes, unlabelled)
    return _prototype_logits(comparison, prototypes, queries)


def _refined(
    comparison: Mapping[str, Any], support: np.ndarray, hard: np.ndarray, prototypes: np.ndarray, unlabelled: np.ndarray
) -> np.ndarray:
    """Refine prototypes by soft k-means, as :meth:`nas_meta.learners.protonet.ProtoNet.refined` does."""
    features = np.concatenate([_features(comparison, support), _features(comparison, unlabelled)])
    for _ in range(STEPS):
        logits = _prototype_logits(comparison, prototypes, unlabelled)
        soft = np.exp(logits - logits.max(1, keepdims=True))
        soft /= soft.sum(1, keepdims=True)
        weights = np.concatenate([SUPPORT_WEIGHT * hard, soft])
        prototypes = _features(comparison, class_means(features, weights))
    return prototypes


def _features(comparison: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    """Return embeddings as prototypes average them."""
    return unit(z) if comparison["distance"] == "euclidean" and comparison["normalize"] else z


def _prototype_logits(comparison: Mapping[str, Any], prototypes: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the logits ``[M, N]`` of queries from prototypes ``[N, D]``."""
    if comparison["distance"] == "cosine":
        return comparison["scale"] * unit(queries) @ unit(prototypes).T
    q = _features(comparison, queries)
    squared = (q**2).sum(1, keepdims=True) - 2 * q @ prototypes.T + (prototypes**2).sum(1)
    return -comparison["scale"] * squared


def class_means(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the mean of the features ``[M, D]`` of every class, weighted by ``[M, N]``: ``[N, D]``."""
    return weights.T @ features / weights.sum(0)[:, None]
