"""Asynchronous successive halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from nas_meta.strategy.stopping.pareto_rank import rank_of
from nas_meta.strategy.stopping.rule import Report, Rule, RuleOptions


class AshaOptions(RuleOptions):
    name: Literal["asha"] = "asha"
    eta: float = Field(4.0, gt=1, description="1 in eta goes on from a rung; default rungs are that factor apart")


class Asha(Rule):
    """Goes on if among the best 1/eta of all that reached the rung, itself included: ⌊n/eta⌋ of n, at least one.

    Algorithm 2 of the paper promotes a paused trial as soon as it is among them; here a trial is judged once, when it
    arrives, and nothing waits for others. With several objectives the non-dominated rank decides, within a front the
    crowding distance (Schmucker et al. 2021, "Multi-objective Asynchronous Successive Halving").
    """

    Options = AshaOptions

    def goes_on(self, report: Report, others: Sequence[Report]) -> bool:
        return rank_of(report, others) < max(1, int((len(others) + 1) / self.options.eta))
