"""ProxylessNAS with NNI's super-modules: a forward pass takes the time and the memory of one path."""

from __future__ import annotations

import torch

from nas_meta import ChoiceSupernet
from strategies.one_shot.base import OneShot
from strategies.one_shot.darts import GradientMethod, GradientOptions
from strategies.one_shot.nni_supermodules import SuperModules, proxyless


class Binarized(GradientMethod):
    """Gradient method whose passes compute one path, drawn from the softmax of α; binary gates get its gradient."""

    @staticmethod
    def mutate(supernet: ChoiceSupernet) -> SuperModules:
        return proxyless(supernet)

    def before_weights(self, step: int) -> None:
        self.training.modules.resample()

    def gradient(self, step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        self.training.modules.resample()
        return super().gradient(step)


class ProxylessNAS(OneShot):
    """ProxylessNAS (Cai, Zhu and Han 2019): paths drawn from a softmax over each choice, learned by gradient (NNI).

    ∂L/∂α_i ≈ Σ_j ∂L/∂g_j p_j (δ_ij - p_i) (their equation 4). The backward pass evaluates every gate g_j; the paper
    samples two of them.
    """

    Options = GradientOptions
    name = "proxyless"
    method = Binarized
