"""The section ``final_training`` of a config: how the best trials are trained further at the end of the search."""

from __future__ import annotations

from pydantic import Field

from nas_meta.config.section import Section
from nas_meta.learners.training.distillation import Distillation, number_or_section


class FinalTrainingSection(Section):
    """Section ``final_training``: how the best trials are trained further after the search."""

    trials: int = Field(
        1,
        ge=1,
        description="number of trials, best by the first objective, that are trained further; at most evaluation.keep",
    )
    steps: int = Field(
        160, ge=1, description="further meta-training steps; the result is used if it is better on meta-validation"
    )
    lr: float | None = Field(
        None, gt=0, description="largest learning rate; by default that of the trial, whose schedule starts again"
    )
    distill: Distillation | None = Field(
        None,
        description="distillation in the final training, as learner.training.distill; by default that of the trial",
        json_schema_extra=number_or_section,
    )
