"""ProxylessNAS over NNI's super-modules: one path at a time, in memory as in time of the forward pass."""

from __future__ import annotations

import torch

from nas_meta import ChoiceSupernet
from strategies.one_shot.base import OneShot
from strategies.one_shot.darts import GradientMethod, GradientOptions
from strategies.one_shot.nni_supermodules import SuperModules, proxyless


class Binarized(GradientMethod):
    """Every pass computes one path, drawn anew from the softmax of α; binary gates carry the gradient to α."""

    @staticmethod
    def mutate(supernet: ChoiceSupernet) -> SuperModules:
        return proxyless(supernet)

    def before_weights(self, step: int) -> None:
        self.training.modules.resample()

    def gradient(self, step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        self.training.modules.resample()
        return super().gradient(step)


class ProxylessNAS(OneShot):
    """Cai, Zhu and Han 2019: paths sampled from a softmax over each choice, learned by gradient (NNI).

    ∂L/∂α_i ≈ Σ_j ∂L/∂g_j p_j (δ_ij - p_i) (their equation 4), with every gate g_j, not a pair of them, evaluated in the
    backward pass.
    """

    Options = GradientOptions
    name = "proxyless"
    method = Binarized
