"""Adversarial training on token embeddings e: the loss is also taken at e + δ, δ of length ε where it hurts most.

- ``fgm`` (Miyato et al. 2017, equation 5): δ = ε g / ||g||, g = ∇_e L; the clean loss and that at e + δ, half each.
- ``pgd`` (Madry et al. 2018): K steps δ ← Π(δ + α g / ||g||), Π onto ||δ|| ≤ ε; then as fgm.
- ``freelb`` (Zhu et al. 2020, algorithm 1): the same steps, and the mean of the gradients at all K of them.

Norms are those of a whole text. Every pass sees the same dropout and the same noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nas_meta.learners.training.options import TrainingOptions

Losses = Callable[[], tuple[Tensor, Tensor]]


class Adversary:
    """Disturbs what a table of token embeddings gives, call by call."""

    def __init__(self, table: nn.Embedding, options: TrainingOptions):
        self.kind, self.size = options.adversarial, options.epsilon
        self.steps = 1 if self.kind == "fgm" else options.adversarial_steps
        self.rate = self.size if self.kind == "fgm" else 1.5 * self.size / self.steps
        self.deltas: list[Tensor] = []
        self.calls = 0
        self.active = False
        self._handle = table.register_forward_hook(self._disturb)

    def close(self) -> None:
        """Leaves the table alone from now on."""
        self._handle.remove()

    def backward(self, losses_of: Losses, share: float) -> float:
        """Adds the gradients of ``share`` · the adversarial loss; returns ``share`` · the first loss of the clean pass.

        ``losses_of()`` gives what is reported and what is minimised.
        """
        self.deltas.clear()
        random = torch.get_rng_state()
        at_clean, at_step = (share / 2, 0.0) if self.kind != "freelb" else (share / self.steps, share / self.steps)
        shown = self._pass(losses_of, random, at_clean)
        for step in range(1, self.steps + 1):
            self._ascend()
            last = step == self.steps
            if self.kind != "freelb":
                self._pass(losses_of, random, share / 2 if last else at_step)
            elif not last:
                self._pass(losses_of, random, at_step)
        self.deltas.clear()
        return share * shown

    def _pass(self, losses_of: Losses, random: Tensor, share: float) -> float:
        torch.set_rng_state(random)
        self.calls, self.active = 0, True
        try:
            shown, loss = losses_of()
        finally:
            self.active = False
        for delta in self.deltas:
            delta.grad = None
        if share:
            # The gradient of δ comes along; its length does not matter.
            (share * loss).backward()
        else:
            for delta, gradient in zip(self.deltas, torch.autograd.grad(loss, self.deltas), strict=True):
                delta.grad = gradient
        return shown.item()

    @torch.no_grad()
    def _ascend(self) -> None:
        for delta in self.deltas:
            gradient = delta.grad
            if gradient is not None:
                delta += self.rate * gradient / lengths(gradient).clamp_min(1e-12)
                delta *= (self.size / lengths(delta).clamp_min(1e-12)).clamp_max(1.0)

    def _disturb(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not self.active or not torch.is_grad_enabled():
            return output
        if self.calls == len(self.deltas):
            self.deltas.append(torch.zeros_like(output).requires_grad_())
        self.calls += 1
        return output + self.deltas[self.calls - 1]


def lengths(x: Tensor) -> Tensor:
    """The norm of each text's ``[tokens, width]`` in ``[B, tokens, width]``, as ``[B, 1, 1]``."""
    return x.flatten(1).norm(dim=1)[:, None, None]
