"""When a fitted classifier refuses an answer because a text belongs to none of its classes."""

from __future__ import annotations

import numpy as np

from nas_meta.errors import ConfigError
from nas_meta.learners.open_set import DEFAULT, SCORES, conformal_threshold, units_of
from nas_meta.outputs.classifier.parts import Parts

ENOUGH = 10  # examples that a conformal threshold must leave below it before it replaces the transferred one


def check_refuse(value: object) -> float | None:
    """Return a valid share of refused texts.

    Args:
        value: The share, or None, which refuses nothing.

    Raises:
        ConfigError: It is not a number above 0 and at most 0.5.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 0.5:
        raise ConfigError(
            f"refuse is {value!r}; expected the share of texts of known classes that may be refused, above 0 and at "
            "most 0.5, such as 0.05"
        )
    return float(value)


def check_embeds(parts: Parts) -> None:
    """Check that a model can score how well a text fits its classes.

    Args:
        parts: The model.

    Raises:
        ConfigError: The learner does not classify from embeddings.
    """
    if not parts.embeds:
        raise ConfigError(
            f"the learner '{parts.name}' cannot refuse an answer, because it does not compare embeddings; expected a "
            "model of protonet, matching, ridge or mann, or fit without refuse"
        )


def scores(z: np.ndarray, support: np.ndarray, labels: np.ndarray, ways: int) -> np.ndarray:
    """Score how well texts fit any class: the default score of :mod:`nas_meta.learners.open_set`.

    Args:
        z: ``[M, D]``, embeddings of the texts.
        support: ``[S, D]``, embeddings of the support set.
        labels: ``[S]``, the class of each.
        ways: Number of classes.

    Returns:
        ``[M]``, higher for texts of a class.
    """
    return SCORES[DEFAULT](support, labels, ways, z)


def threshold(parts: Parts, support: np.ndarray, labels: np.ndarray, ways: int, refuse: float) -> float:
    """Return the score below which a text is refused; no out-of-scope example is needed.

    A large support set decides by itself: the conformal quantile of its leave-one-out scores, which is on the safe
    side, because an example that is left out has one example less to be compared with. A small one takes the threshold
    that the model learned on other tasks, in units of its own leave-one-out scores. Where every class has one example,
    the units are those of the similarity of different classes.

    Args:
        parts: The model.
        support: ``[S, D]``, embeddings of the support set.
        labels: ``[S]``, the class of each.
        ways: Number of classes.
        refuse: Share of the texts of the classes that may be refused.

    Returns:
        The threshold.

    Raises:
        ConfigError: The support set is too small, and the model is not calibrated.
    """
    units = units_of(support, labels, ways)
    own = units.own
    if refuse * (len(own) + 1) >= ENOUGH or (parts.calibration is None and refuse * (len(own) + 1) >= 1):
        return conformal_threshold(own, refuse)
    if parts.calibration is None:
        needed = int(np.ceil(1 / refuse - 1e-9)) - 1
        raise ConfigError(
            f"refuse is {refuse}, but only {len(own)} examples are in classes of two or more and the model is not "
            f"calibrated; expected at least {needed} such examples, or one model that this version of nas-meta exported"
        )
    return parts.calibration.threshold(units, len(labels) / ways, refuse)
