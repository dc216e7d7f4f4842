"""Expected improvement: how much better than the best result a candidate is expected to be."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: np.ndarray | float) -> np.ndarray:
    """Return the expected improvement over a value (Jones et al. 1998, "Efficient global optimization", equation 15).

    With z = (μ - best) / σ it is E[max(0, Y - best)] = (μ - best) · Φ(z) + σ · φ(z) for Y ~ N(μ, σ²), and
    max(0, μ - best) where σ is 0.

    Example: μ = best and σ = 1 give φ(0) = 0.399.

    Args:
        mean: The means μ, of any shape.
        deviation: The standard deviations σ, broadcast against ``mean``.
        best: The value to improve on, broadcast against ``mean``. Minus infinity gives infinity.

    Returns:
        Expected improvements, at least 0.
    """
    gain = mean - np.asarray(best, dtype=float)
    safe = np.where(deviation > 0, deviation, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        z = gain / safe
        smooth = gain * ndtr(z) + safe * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.maximum(np.where(deviation > 0, smooth, gain), 0.0)
