"""Differentiable architecture search with NNI's super-modules: DARTS, and a variant that samples (GumbelDARTS)."""

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
    """Options shared by ``darts``, ``gumbel-darts`` and ``proxyless``."""

    arch_lr: float = Field(0.01, gt=0, description="learning rate of Adam for the architecture parameters")
    arch_weight_decay: float = Field(1e-3, ge=0, description="L2 penalty of the architecture parameters")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps, at the start, in which only the weights learn"
    )


class DARTSOptions(GradientOptions):
    """Options of ``darts``."""

    order: Literal[1, 2] = Field(
        1,
        description="order of the architecture gradient; 2 looks one step ahead at about triple the time and memory",
    )


class GradientMethod(Method):
    """Base of the methods whose architecture parameters learn by gradient: Adam with β = (0.5, 0.999), as in DARTS.

    The most probable architectures are derived. Subclasses define :meth:`mutate` and may override :meth:`gradient`.
    """

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
            # The step of the weights needs no gradient of α; without this, it would compute one.
            alpha.requires_grad_(False)
            alpha.grad = None
        return {"meta-train/architecture_loss": float(loss)}

    def gradient(self, step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the gradient of the loss on held-out classes with respect to the architecture parameters.

        Args:
            step: The step, from 1.

        Returns:
            The gradient by parameter name, and the scalar loss.
        """
        training = self.training
        return first_order(training.loss.of(training.upper, training.upper_episode(step)), {}, training.loss.alphas)

    def probabilities(self) -> dict[str, list[float]]:
        return {name: p.tolist() for name, p in self.training.modules.probabilities().items()}

    def derive(self, count: int) -> Generator[Mapping[str, float], None, list[Architecture]]:
        yield from ()
        return most_probable(self.training.space, self.probabilities(), count, self.training.seed)


class Mixed(GradientMethod):
    """Gradient method whose choices sum all candidates, weighted by the softmax of α (Liu et al. 2019, equation 2)."""

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
    """DARTS (Liu, Simonyan and Yang 2019): a softmax over the candidates of every choice, learned by gradient (NNI).

    The first-order gradient takes the weights as they are. The second-order gradient looks ahead by one plain gradient
    step of the weights and is exact (their equation 7).
    """

    Options = DARTSOptions
    name = "darts"
    method = Mixed


class GumbelOptions(GradientOptions):
    """Options of ``gumbel-darts``."""

    temperature: float = Field(1.0, gt=0, description="temperature of the Gumbel-softmax at the start")
    last_temperature: float = Field(
        0.33, gt=0, description="temperature of the Gumbel-softmax at the end; it changes linearly"
    )
    hard: bool = Field(
        True, description="whether a sample is one candidate, with the gradient of the mixture; otherwise the mixture"
    )


class Sampled(GradientMethod):
    """Gradient method that weights candidates by Gumbel-softmax samples, softmax((α + g) / τ) with g ~ Gumbel(0, 1)."""

    @staticmethod
    def mutate(supernet: ChoiceSupernet) -> SuperModules:
        return differentiable(supernet, GumbelSoftmax())

    def before_weights(self, step: int) -> None:
        o = self.options
        progress = step / o.steps
        for module in self.training.supernet.modules():
            if isinstance(module, GumbelSoftmax):
                module.tau = o.temperature + progress * (o.last_temperature - o.temperature)
                module.hard = o.hard


class GumbelDARTS(OneShot):
    """DARTS with samples in place of sums (Dong and Yang 2019, "GDAS"; Xie et al. 2019, "SNAS"; NNI).

    Each pass computes one architecture, as the derived model will, so there is no gap between the trained mixture and
    the derived model.
    """

    Options = GumbelOptions
    name = "gumbel-darts"
    method = Sampled
