"""Training options of all learners: weight decay, clipping, dropout, schedule, regularisation, early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from nas_meta.core.options import PluginOptions
from nas_meta.learners.training.distillation import Distillation, number_or_section

REMOVED = ("mixup", "average_last")  # options of earlier versions, which were off if 0


class TrainingOptions(PluginOptions):
    """Options under ``learner.training``."""

    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay (Loshchilov and Hutter 2019)")
    clip: float = Field(1.0, gt=0, description="gradients with a larger norm than this are scaled down to it")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="probability of every dropout layer; by default the model's own"
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the steps over which the learning rate rises linearly from zero"
    )
    decay: Literal["none", "linear", "cosine"] = Field(
        "none", description="how the learning rate falls to zero after the warm-up; none keeps it constant"
    )
    word_dropout: float = Field(0.0, ge=0, lt=1, description="probability that a word of a text is dropped")
    word_swap: float = Field(
        0.0, ge=0, le=1, description="probability that a word is swapped with another word of its text"
    )
    synonyms: float = Field(
        0.0, ge=0, le=1, description="probability that a word is replaced by a synonym from Roget's Thesaurus"
    )
    adversarial: Literal["none", "fgm", "pgd", "freelb"] = Field(
        "none", description="method of adversarial training on perturbed token embeddings; none disables it"
    )
    epsilon: float = Field(0.3, gt=0, description="maximum norm ε of the adversarial perturbation of a text")
    adversarial_steps: int = Field(3, ge=1, description="gradient ascent steps of pgd and freelb")
    distill: Distillation = Field(
        Distillation(weight=0.0),
        description="loss weight of the distance to the full model's embeddings, 0 disables distillation; or "
        "{model: NAME, weight: W, trained: true} with another teacher, or with one that is meta-trained first",
        json_schema_extra=number_or_section,
    )
    patience: int = Field(
        0, ge=0, description="interim validations without improvement after which training stops early; 0 disables it"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_removed(cls, given: Any) -> Any:
        """Accept what earlier versions wrote to journals and exports of options that have been removed since."""
        if isinstance(given, Mapping):
            return {name: value for name, value in given.items() if name not in REMOVED or value != 0}
        return given

    @property
    def acts_on_embeddings(self) -> bool:
        """Whether regularisation changes what :meth:`Encoder.embed` computes on each call in training."""
        noise = self.word_dropout or self.word_swap or self.synonyms or self.distill.weight
        return bool(noise) or self.adversarial != "none"


def rate_factor(options: TrainingOptions, step: int, steps: int) -> float:
    """Compute the learning rate of a step as a share of the maximum learning rate.

    It rises linearly over the first ``warmup`` · steps. Then it falls to zero as 1 - t, or (1 + cos πt) / 2 (Loshchilov
    and Hutter 2017, "SGDR", equation 5 without restarts), where t is the share of the remaining steps that are done.

    Args:
        options: The options, of which ``warmup`` and ``decay`` are used.
        step: The step, from 0 to ``steps`` - 1.
        steps: Number of steps.

    Returns:
        A factor from 0 to 1.
    """
    rising = options.warmup * steps
    if step + 1 <= rising:
        return (step + 1) / rising
    t = (step - rising) / max(1.0, steps - rising)
    if options.decay == "linear":
        return 1 - max(0.0, t)
    if options.decay == "cosine":
        return (1 + math.cos(math.pi * max(0.0, t))) / 2
    return 1.0


def set_dropout(model: nn.Module, options: TrainingOptions) -> None:
    """Set the probability of every dropout layer, unless ``options.dropout`` is None.

    Args:
        model: The model, changed in place.
        options: The options.
    """
    if options.dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = options.dropout
