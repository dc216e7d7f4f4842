"""Racing (Maron and Moore 1993, "Hoeffding Races"; Birattari et al. 2002): stop what is significantly worse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from nas_meta.evaluation.metrics import ACCURACY
from nas_meta.strategy.stopping.rule import RungOptions, RungReport, StoppingRule


class RacingOptions(RungOptions):
    """Options of racing."""

    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="a trial stops where it is worse with at least this confidence"
    )


class Racing(StoppingRule):
    """Racing: a trial stops where a paired test over the episodes finds it less accurate than the incumbent.

    Every trial is validated on the same episodes, so differences are paired and the difficulty of an episode cancels.
    The incumbent is the most accurate trial at this rung that has not been stopped, finished trials included. With
    several objectives only trials that are at least as good in all objectives other than accuracy count; a trial
    without such a rival continues.
    """

    Options = RacingOptions

    def should_continue(self, report: RungReport, others: Sequence[RungReport]) -> bool:
        rivals = [o for o in others if o.trial not in self.stopped and self._as_good_otherwise(o, report)]
        if not rivals:
            return True
        incumbent = max(rivals, key=lambda r: r.scores.mean())
        return p_value(incumbent.scores, report.scores) > 1 - self.options.confidence

    def _as_good_otherwise(self, one: RungReport, other: RungReport) -> bool:
        """Whether one trial is at least as good as another in every objective besides accuracy."""
        values = zip(self.objectives, one.values, other.values, strict=True)
        return all(a >= b for objective, a, b in values if objective.metric != ACCURACY)


def p_value(one: np.ndarray, other: np.ndarray) -> float:
    """Return the p-value of one trial's lead over another: the one-sided paired t-test.

    t = d̄ / (s / √n), with d the differences by episode and s their sample deviation; P(T > t) with n - 1 degrees of
    freedom (Student 1908).

    Args:
        one: ``[episodes]``, the scores of the trial that leads.
        other: ``[episodes]``, the scores of the other trial on the same episodes.

    Returns:
        The probability of such a lead if the other trial is in truth no worse; from 0 to 1.
    """
    from scipy.special import stdtr

    differences = one - other
    mean, deviation = differences.mean(), differences.std(ddof=1)
    if deviation == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(len(differences) - 1, -mean / (deviation / math.sqrt(len(differences)))))
