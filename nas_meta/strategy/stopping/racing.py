"""Racing (Maron and Moore 1993, "Hoeffding Races"; Birattari et al. 2002): stops what is significantly worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from nas_meta.strategy.stopping.rule import Report, Rule, RuleOptions


class RacingOptions(RuleOptions):
    name: Literal["racing"] = "racing"
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="a trial is stopped where it is worse with at least this confidence"
    )


class Racing(Rule):
    """Stops a trial that is less accurate than the incumbent at the same rung, by a paired test over the episodes.

    Every trial is validated on the same episodes, so their differences are paired: what makes an episode hard falls
    out. The incumbent is the most accurate trial at this rung that is still in the race, finished ones included; with
    several objectives, of those that are at least as good in all others than accuracy: a trial with none goes on.
    """

    Options = RacingOptions

    def goes_on(self, report: Report, others: Sequence[Report]) -> bool:
        rivals = [o for o in others if o.trial not in self.stopped and self._as_good_elsewhere(o, report)]
        if not rivals:
            return True
        incumbent = max(rivals, key=lambda r: r.scores.mean())
        return chance(incumbent.scores, report.scores) > 1 - self.options.confidence

    def _as_good_elsewhere(self, one: Report, other: Report) -> bool:
        return all(
            a >= b for o, a, b in zip(self.objectives, one.values, other.values, strict=True) if o.metric != "accuracy"
        )


def chance(one: np.ndarray, other: np.ndarray) -> float:
    """The chance of such a lead of one over the other if the other is in truth no worse: the paired t-test, one-sided.

    t = d̄ / (s / √n), with d the differences by episode and s their sample deviation; P(T > t) with n - 1 degrees of
    freedom (Student 1908).

    Args:
        one, other: ``[episodes]`` scores on the same episodes.
    """
    from scipy.special import stdtr

    differences = one - other
    mean, deviation = differences.mean(), differences.std(ddof=1)
    if deviation == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(len(differences) - 1, -mean / (deviation / math.sqrt(len(differences)))))
