"""How the weights are trained whatever the learner: decay, clipping, dropout, schedule, averaging, early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nas_meta.core.options import PluginOptions


class TrainingOptions(PluginOptions):
    """Options under ``learner.training``."""

    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay (Loshchilov and Hutter 2019)")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient of a step")
    dropout: float | None = Field(None, ge=0, lt=1, description="of every dropout layer; by default the model's own")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises from zero")
    decay: Literal["none", "linear", "cosine"] = Field("none", description="how the learning rate falls afterwards")
    average_last: int = Field(0, ge=0, description="the result is the mean of the weights after so many last steps")
    word_dropout: float = Field(0.0, ge=0, lt=1, description="chance of every word of a text to be left out")
    word_swap: float = Field(0.0, ge=0, le=1, description="chance of every word to change places with another")
    synonyms: float = Field(0.0, ge=0, le=1, description="chance of every word to be replaced by a synonym (Roget's)")
    mixup: float = Field(0.0, ge=0, description="the α of Beta(α, α) by which embeddings are mixed; 0 does not")
    adversarial: Literal["none", "fgm", "pgd", "freelb"] = Field(
        "none", description="also train on disturbed token embeddings"
    )
    epsilon: float = Field(0.3, gt=0, description="length of that disturbance of a text")
    adversarial_steps: int = Field(3, ge=1, description="steps of pgd and freelb")
    distill: float = Field(0.0, ge=0, description="weight of the distance to the full model's embeddings")
    patience: int = Field(
        0, ge=0, description="stop after so many interim validations without a better one, and go back to the best"
    )

    @property
    def acts_on_embeddings(self) -> bool:
        """Whether :meth:`Encoder.embed` does something else in training, call by call."""
        noise = self.word_dropout or self.word_swap or self.synonyms or self.mixup or self.distill
        return bool(noise) or self.adversarial != "none"


def rate_factor(options: TrainingOptions, step: int, steps: int) -> float:
    """The learning rate of step 0 to steps - 1 as a share of its highest.

    Rises linearly over the first ``warmup`` · steps, then falls to zero with t, the share of the rest that is over:
    1 - t, or (1 + cos πt) / 2 (Loshchilov and Hutter 2017, "SGDR", equation 5 without restarts).
    """
    rising = options.warmup * steps
    if step + 1 <= rising:
        return (step + 1) / rising
    over = (step - rising) / max(1.0, steps - rising)
    if options.decay == "linear":
        return 1 - max(0.0, over)
    if options.decay == "cosine":
        return (1 + math.cos(math.pi * max(0.0, over))) / 2
    return 1.0


def set_dropout(model: nn.Module, options: TrainingOptions) -> None:
    """Gives every dropout layer the probability that the options name, if any."""
    if options.dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = options.dropout


class Average:
    """The running mean of weights over the last steps (Izmailov et al. 2018, "Averaging Weights", equation 2)."""

    def __init__(self, parameters: list[nn.Parameter], last: int, steps: int):
        self.parameters, self.first, self.steps, self.count = parameters, steps - last, steps, 0
        self.mean: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]
        self.mean = [mean.to(p.device) for mean, p in zip(state["mean"], self.parameters, strict=False)]

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Takes in the weights after a step (from 0), if it is one of the last; after the very last, sets the mean."""
        if step < self.first:
            return
        self.count += 1
        if not self.mean:
            self.mean = [p.detach().clone() for p in self.parameters]
        for mean, parameter in zip(self.mean, self.parameters, strict=True):
            mean.lerp_(parameter, 1 / self.count)
        if step + 1 == self.steps:
            for mean, parameter in zip(self.mean, self.parameters, strict=True):
                parameter.copy_(mean)
