"""Expected hypervolume improvement: how much a candidate is expected to add to a Pareto front."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from strategies.surrogate.expected_improvement import expected_improvement

CHUNK = 200_000  # candidates times boxes that are computed at a time


def free_boxes(front: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide the space above a reference point that no row dominates into boxes that do not overlap.

    Computed by slicing, as the hypervolume is: between two neighbouring values of the last objective, the rows that
    reach the upper value block what they dominate in the other objectives; what is free there is divided in the same
    way. Invariant: the boxes of a slice are those of its remaining objectives, extended by the slice. The upper ends of
    the outermost boxes are infinite.

    Example: the front (1, 2), (2, 1) above (0, 0) leaves the boxes (2..∞, 0..1), (1..∞, 1..2) and (0..∞, 2..∞).

    Args:
        front: ``[rows, objectives]``, higher is better; rows may be dominated and need not exceed the reference.
        reference: ``[objectives]``.

    Returns:
        Lower and upper corners, ``[boxes, objectives]`` each.
    """
    front = front[(front > reference).all(1)]
    if front.shape[1] == 1:
        return np.array([[max(front[:, 0], default=reference[0])]]), np.array([[np.inf]])
    edges = np.concatenate([[reference[-1]], np.unique(front[:, -1]), [np.inf]])
    lows, highs = [], []
    for low, high in pairwise(edges.tolist()):
        below, above = free_boxes(front[front[:, -1] >= high][:, :-1], reference[:-1])
        lows.append(np.column_stack([below, np.full(len(below), low)]))
        highs.append(np.column_stack([above, np.full(len(above), high)]))
    return np.concatenate(lows), np.concatenate(highs)


def expected_hypervolume_improvement(
    mean: np.ndarray, deviation: np.ndarray, front: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """Return the hypervolume that candidates are expected to add to a front, exactly.

    The improvement of a point y is Σ_k Π_i max(0, min(y_i, u_ki) - l_ki), summed over the boxes from l_k to u_k of
    :func:`free_boxes`. For independent objectives Y_i ~ N(μ_i, σ_i²) its expectation is Σ_k Π_i (EI_i(l_ki) -
    EI_i(u_ki)), with the expected improvement EI_i over a value (Emmerich et al. 2006; Daulton et al. 2020, "q-EHVI",
    for any number of objectives). An objective that is known exactly has σ_i = 0.

    Example: without uncertainty, the point (2, 2) adds 4 - 1 = 3 to the front (1, 1) above (0, 0).

    Args:
        mean: ``[candidates, objectives]``, higher is better.
        deviation: ``[candidates, objectives]`` standard deviations.
        front: ``[rows, objectives]``, the values found so far, or those of their Pareto front.
        reference: ``[objectives]``, the point from which the hypervolume is measured.

    Returns:
        ``[candidates]``, at least 0.
    """
    lows, highs = free_boxes(front, reference)
    step = max(1, CHUNK // len(lows))
    parts = []
    for first in range(0, len(mean), step):
        mu, sigma = mean[first : first + step, None], deviation[first : first + step, None]
        sides = expected_improvement(mu, sigma, lows) - np.where(
            np.isinf(highs), 0.0, expected_improvement(mu, sigma, np.where(np.isinf(highs), 0.0, highs))
        )
        parts.append(np.maximum(sides, 0.0).prod(-1).sum(-1))
    return np.concatenate(parts)
