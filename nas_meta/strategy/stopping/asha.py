"""Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    but is judged again at each later rung, among all that have reached the earlier ones since: the first trials, which
    have nobody to be compared with, do not end only because they came first. The last trial that is not stopped always
    continues, so that one trial is completed.

    With several objectives the non-dominated rank decides (Schmucker et al. 2021, "Multi-objective Asynchronous
    Successive Halving"), then whether a trial reaches the median of the first objective, then the crowding distance.

    Example: with eta = 4, the first three trials at a rung each continue only if they are the best so far; the eighth
    continues if it is among the best two. The first trial, which always passes its first rung, is stopped at the second
    one if two of eight trials were better at the first.
    """

    Options = AshaOptions

    def should_continue(self, report: RungReport, others: Sequence[RungReport]) -> bool:
        return rank_of(report, others) < max(1, int((len(others) + 1) / self.options.eta))

    def decide(self, report: RungReport) -> bool:
        """Record a report and decide whether its trial continues.

        Args:
            report: The trial at the rung.

        Returns:
            Whether it is among the best at this rung and, by what is known now, at all rungs before it.
        """
        trial = report.trial
        self._reports[report.step][trial] = report
        passed = [reports for step, reports in self._reports.items() if step <= report.step and trial in reports]
        known = {other for reports in self._reports.values() for other in reports}
        if all(self._is_among_the_best(trial, reports) for reports in passed) or known - self.stopped == {trial}:
            return True
        self.stopped.add(trial)
        return False

    def _is_among_the_best(self, trial: int, reports: Mapping[int, RungReport]) -> bool:
        """Return whether a trial continues beyond a rung, by all reports of the rung so far."""
        others = [report for other, report in reports.items() if other != trial]
        return self.should_continue(reports[trial], others)
