"""Differentiable architecture search over NNI's mixed super-modules: DARTS, and its sampling variant."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Literal

import torch
from pydantic import Field

from nas_meta import Architecture, ChoiceSupernet
from strategies.metanas.most_probable import most_probable
from strategies.one_shot.base import Method, OneShot, OneShotOptions, Training
from strategies.one_shot.bilevel import first_order, second_order
from strategies.one_shot.nni_supermodules import GumbelSoftmax, SuperModules, differentiable


class GradientOptions(OneShotOptions):
    """Options of strategies that give their architecture parameters gradients."""

    arch_lr: float = Field(0.01, gt=0, description="learning rate of the architecture parameters (Adam)")
    arch_weight_decay: float = Field(1e-3, ge=0, description="L2 penalty of the architecture parameters")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which only the weights learn")


class DARTSOptions(GradientOptions):
    """Options of DARTS."""

    order: Literal[1, 2] = Field(
        1, description="2 looks one step of the weights ahead, at about three times the time and memory"
    )


class GradientMethod(Method):
    """Architecture parameters learn by Adam, β = (0.5, 0.999) as in DARTS; the most probable choices are derived."""

    def __init__(self, training: Training):
        super().__init__(training)
        self.alphas = training.modules.alphas
        self.optimizer = torch.optim.Adam(
            self.alphas.values(), self.options.arch_lr, (0.5, 0.999), weight_decay=self.options.arch_weight_decay
        )

    def state(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])

    def architecture_step(self, step: int) -> Mapping[str, float]:
        if step <= self.options.warmup * self.options.steps:
            return {}
        training = self.training
        training.encoder.eval()
        for alpha in self.alphas.values():
            alpha.requires_grad_(True)
        gradient, loss = self.gradient(step)
        parameters = training.loss.alphas
        for name, slope in gradient.items():
            parameters[name].grad = slope
        self.optimizer.step()
        for alpha in self.alphas.values():
            # The weights' step needs none, and does not pay for it.
            alpha.requires_grad_(False)
            alpha.grad = None
        return {"meta-train/architecture_loss": float(loss)}

    def gradient(self, step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Of the loss on held-out classes with respect to the architecture parameters, and that loss."""
        training = self.training
        return first_order(training.loss.of(training.upper, training.upper_episode(step)), {}, training.loss.alphas)

    def probabilities(self) -> dict[str, list[float]]:
        return {name: p.tolist() for name, p in self.training.modules.probabilities().items()}

    def derive(self, count: int) -> Generator[Mapping[str, float], None, list[Architecture]]:
        yield from ()
        return most_probable(self.training.space, self.probabilities(), count, self.training.seed)


class Mixed(GradientMethod):
    """Sums over all candidates, weighted with the softmax of α (Liu et al. 2019, equation 2)."""

    @staticmethod
    def mutate(supernet: ChoiceSupernet) -> SuperModules:
        return differentiable(supernet)

    def gradient(self, step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        if self.options.order == 1:
            return super().gradient(step)
        training = self.training
        learner = training.learner.options
        with training.encoder.keeping_graphs():
            return second_order(
                training.loss.of(training.lower, training.lower_episode(step * learner.meta_batch)),
                training.loss.of(training.upper, training.upper_episode(step)),
                training.loss.weights,
                training.loss.alphas,
                learner.lr,
            )


class DARTS(OneShot):
    """Liu, Simonyan and Yang 2019: a softmax over the candidates of every choice, learned by gradient (NNI).

    First order is the gradient at the weights as they are; second order is exact (their equation 7), through one plain
    gradient step of the weights.
    """

    Options = DARTSOptions
    name = "darts"
    method = Mixed


class GumbelOptions(GradientOptions):
    """Options of GumbelDARTS."""

    temperature: float = Field(1.0, gt=0, description="of the samples at the start")
    last_temperature: float = Field(0.33, gt=0, description="at the end; falls linearly")
    hard: bool = Field(True, description="one candidate a sample, with the gradient of the mixture; false mixes them")


class Sampled(GradientMethod):
    """Candidates are weighted with Gumbel-softmax samples, softmax((α + g) / τ) with g ~ Gumbel(0, 1)."""

    @staticmethod
    def mutate(supernet: ChoiceSupernet) -> SuperModules:
        return differentiable(supernet, GumbelSoftmax())

    def before_weights(self, step: int) -> None:
        o = self.options
        over = step / o.steps
        for module in self.training.supernet.modules():
            if isinstance(module, GumbelSoftmax):
                module.tau = o.temperature + over * (o.last_temperature - o.temperature)
                module.hard = o.hard


class GumbelDARTS(OneShot):
    """DARTS with samples in the place of sums (Dong and Yang 2019, "GDAS"; Xie et al. 2019, "SNAS"; NNI).

    What the supernet computes is then one architecture, as the derived one will be: no gap is left to be crossed.
    """

    Options = GumbelOptions
    name = "gumbel-darts"
    method = Sampled
