"""Test a fitted classifier on labelled examples: its accuracy with an interval, and a table of its classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nas_meta.errors import DataError, nearest
from nas_meta.outputs.classifier.classifier import FewShotClassifier

Z95 = 1.96


def wilson(right: int, examples: int) -> tuple[float, float]:
    """Compute the 95% interval of a share (Wilson, 1927), which stays within 0 and 1 also where all are right.

    Example: 9 of 10 give 0.596 to 0.982.

    Args:
        right: Number of successes.
        examples: Number of independent trials, at least 1.

    Returns:
        The lower and the upper end.
    """
    share, spread = right / examples, Z95**2 / examples
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / examples + spread / (4 * examples))
    return max(0.0, centre - half), min(1.0, centre + half)


def score_on(classifier: FewShotClassifier, texts: Sequence[Any], labels: Sequence[str], where: str) -> dict[str, Any]:
    """Test a fitted classifier.

    Args:
        classifier: The classifier.
        texts: The examples.
        labels: The true class of each, as text: a class that is a number or a boolean is compared as it is printed.
        where: File of the examples, for error messages.

    Returns:
        ``accuracy``, its 95% interval over examples (``accuracy_interval``), ``examples``, the number of
        those that were ``refused``, and ``classes``: for each
        class its label, the number of its examples, of those classified correctly, and of all that were predicted to
        be of it, with ``recall`` and ``precision`` (None without examples or predictions).

    Raises:
        DataError: A label is not a class of the classifier.
    """
    names = [str(name) for name in classifier.classes_.tolist()]
    of = {name: i for i, name in enumerate(names)}
    for name in labels:
        if name not in of:
            raise DataError(f"{where}: the label '{name}' is not a class of the classifier; {nearest(name, names)}")
    truth = np.array([of[name] for name in labels])
    predicted = np.array([-1 if name is None else of[str(name)] for name in classifier.predict(texts).tolist()])
    right = predicted == truth
    rows = []
    for i, name in enumerate(names):
        examples, found, hits = int((truth == i).sum()), int((predicted == i).sum()), int(right[truth == i].sum())
        rows.append({
            "label": name, "examples": examples, "right": hits, "predicted": found,
            "recall": hits / examples if examples else None, "precision": hits / found if found else None,
        })  # fmt: skip
    return {
        "accuracy": float(right.mean()), "accuracy_interval": list(wilson(int(right.sum()), len(right))),
        "examples": len(right), "refused": int((predicted < 0).sum()), "classes": rows,
    }  # fmt: skip
