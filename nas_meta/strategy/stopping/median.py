"""The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from nas_meta.strategy.stopping.pareto_rank import rank_of
from nas_meta.strategy.stopping.rule import Report, Rule, RuleOptions


class MedianOptions(RuleOptions):
    name: Literal["median"] = "median"
    least: int = Field(3, ge=1, description="others that must have reached a rung before it stops anything")


class Median(Rule):
    """Stops a trial that is worse than the median of the others at its rung: more than half of them stand before it.

    The paper compares the best value so far with the others' running averages; here both are the values at the rung,
    for accuracy rises and an average over its past would be too low a bar. With several objectives the non-dominated
    rank decides, within a front the crowding distance.
    """

    Options = MedianOptions

    def goes_on(self, report: Report, others: Sequence[Report]) -> bool:
        return len(others) < self.options.least or 2 * rank_of(report, others) <= len(others)
