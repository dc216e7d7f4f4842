"""The tree-structured Parzen estimator for one or several objectives, with optuna's ``TPESampler``."""

from __future__ import annotations

from optuna.samplers import TPESampler
from pydantic import Field

from nas_meta import PluginOptions
from strategies.optuna.adapter import OptunaAdapter


class TPEOptions(PluginOptions):
    """Options of ``tpe`` and ``motpe``."""

    startup: int = Field(10, ge=1, description="random architectures before the estimator proposes")
    candidates: int = Field(24, ge=1, description="architectures that the estimator compares for each proposal")
    multivariate: bool = Field(
        True, description="whether choices are modelled jointly; otherwise each is modelled alone"
    )


class TPE(OptunaAdapter):
    """TPE (Bergstra et al. 2011): maximises p(architecture | good) / p(architecture | rest) (optuna)."""

    Options = TPEOptions

    def make(self) -> TPESampler:
        return TPESampler(
            n_startup_trials=self.options.startup,
            n_ei_candidates=self.options.candidates,
            multivariate=self.options.multivariate,
            group=self.options.multivariate,
            constant_liar=self.context.workers > 1,
            seed=self.context.seed,
        )


class MOTPE(TPE):
    """TPE for several objectives (Ozaki et al. 2022): the first Pareto fronts are the good architectures (optuna)."""

    objectives = None
