"""Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning")."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from nas_meta.strategy.stopping.pareto_rank import rank_of
from nas_meta.strategy.stopping.rule import RungOptions, RungReport, StoppingRule


class AshaOptions(RungOptions):
    """Options of ASHA."""

    eta: float = Field(
        4.0, gt=1, description="one trial in eta continues beyond a rung; default rungs are a factor of eta apart"
    )


class Asha(StoppingRule):
    """Asynchronous successive halving: the best 1/eta of the trials at a rung continue.

    Of the n trials that have reached the rung so far, the judged one included, the best max(1, ⌊n/eta⌋) continue.
    Algorithm 2 of the paper promotes a paused trial as soon as it is among them; here a trial never waits for others,
    but is judged again at the next rung, by all that have reached this one since. With several objectives the
    non-dominated rank decides, within a front the crowding distance (Schmucker et al. 2021, "Multi-objective
    Asynchronous Successive Halving"), after whether a trial is below the median of the first objective.

    Example: with eta = 4, the first three trials at a rung each continue only if they are the best so far; the eighth
    continues if it is among the best two. The first trial, which always passes its first rung, is stopped at the second
    one if two of eight trials were better at the first.
    """

    Options = AshaOptions

    def should_continue(self, report: RungReport, others: Sequence[RungReport]) -> bool:
        return rank_of(report, others) < max(1, int((len(others) + 1) / self.options.eta))
