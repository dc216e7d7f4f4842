"""The tree-structured Parzen estimator: optuna's, of one objective and of several."""

from __future__ import annotations

from optuna.samplers import TPESampler
from pydantic import Field

from nas_meta import PluginOptions
from strategies.optuna.adapter import OptunaAdapter


class TPEOptions(PluginOptions):
    """Options of TPE."""

    startup: int = Field(10, ge=1, description="random architectures before the first modelled one")
    candidates: int = Field(24, ge=1, description="draws of which the most promising is proposed")
    multivariate: bool = Field(False, description="models choices together rather than one by one")


class TPE(OptunaAdapter):
    """Bergstra et al. 2011: proposes where p(architecture | good) / p(architecture | rest) is largest (optuna)."""

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


class MOTPEOptions(TPEOptions):
    """Options of multi-objective TPE."""

    multivariate: bool = Field(True, description="models choices together rather than one by one")


class MOTPE(TPE):
    """TPE of several objectives: "good" are the first fronts (Ozaki et al. 2022; optuna)."""

    Options = MOTPEOptions
    objectives = None
