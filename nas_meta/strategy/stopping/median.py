"""The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from nas_meta.strategy.stopping.pareto_rank import rank_of
from nas_meta.strategy.stopping.rule import RungOptions, RungReport, StoppingRule


class MedianOptions(RungOptions):
    """Options of the median stopping rule."""

    least: int = Field(3, ge=1, description="trials that must have reached a rung before the rule stops another one")


class Median(StoppingRule):
    """The median rule: a trial stops where more than half of the others at its rung are better.

    The paper compares the best value of a trial so far with the running averages of the others; here both are the
    values at the rung, because accuracy rises during training and an average over the past would be too low a bar.
    With several objectives the non-dominated rank decides, within a front the crowding distance.
    """

    Options = MedianOptions

    def should_continue(self, report: RungReport, others: Sequence[RungReport]) -> bool:
        return len(others) < self.options.least or 2 * rank_of(report, others) <= len(others)
