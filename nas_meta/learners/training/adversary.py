"""Adversarial training: the model is also trained on token embeddings e + δ whose perturbation δ raises the loss.

- ``fgm`` (Miyato et al. 2017, equation 5): one step δ = ε g / ||g|| with g = ∇_e L; the objective is the mean of the
  clean loss and the loss at e + δ.
- ``pgd`` (Madry et al. 2018): K steps δ ← Π(δ + α g / ||g||) with the projection Π onto ||δ|| ≤ ε, starting from 0; the
  objective is as for fgm.
- ``freelb`` (Zhu et al. 2020, algorithm 1): the same K steps; the gradient is the mean of the gradients at the first K
  perturbations, of which the very first is 0.

Norms are taken over all tokens of a text. Every pass uses the same dropout and the same word noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nas_meta.learners.training.options import TrainingOptions

Losses = Callable[[], tuple[Tensor, Tensor]]
"""Computes the loss to report and the loss to minimise."""


class Adversary:
    """Perturbs the output of a table of token embeddings, with a separate perturbation for each call of the table.

    Args:
        table: The token embeddings; a hook on them is active until :meth:`close`.
        options: The training options, of which ``adversarial``, ``epsilon`` and ``adversarial_steps`` are used.
    """

    def __init__(self, table: nn.Embedding, options: TrainingOptions):
        self.kind, self.size = options.adversarial, options.epsilon
        self.steps = 1 if self.kind == "fgm" else options.adversarial_steps
        self.rate = self.size if self.kind == "fgm" else 1.5 * self.size / self.steps
        self.deltas: list[Tensor] = []
        self.calls = 0
        self.active = False
        self._handle = table.register_forward_hook(self._perturb)

    def close(self) -> None:
        """Remove the hook from the table."""
        self._handle.remove()

    def backward(self, losses_of: Losses, share: float) -> float:
        """Add the gradients of ``share`` times the adversarial objective to the parameters' ``grad``.

        Args:
            losses_of: Computes the loss to report and the loss to minimise; called once per pass.
            share: Weight of the objective.

        Returns:
            ``share`` times the clean loss to report.
        """
        self.deltas.clear()
        random = torch.get_rng_state()
        clean, intermediate = (share / 2, 0.0) if self.kind != "freelb" else (share / self.steps, share / self.steps)
        reported = self._pass(losses_of, random, clean)
        for step in range(1, self.steps + 1):
            self._ascend()
            last = step == self.steps
            if self.kind != "freelb":
                self._pass(losses_of, random, share / 2 if last else intermediate)
            elif not last:
                self._pass(losses_of, random, intermediate)
        self.deltas.clear()
        return share * reported

    def _pass(self, losses_of: Losses, random: Tensor, share: float) -> float:
        """Run forward and backward at the current perturbations; a share of 0 computes only their gradients."""
        torch.set_rng_state(random)
        self.calls, self.active = 0, True
        try:
            reported, loss = losses_of()
        finally:
            self.active = False
        for delta in self.deltas:
            delta.grad = None
        if share:
            # This also computes the gradient of δ, scaled by the share, which normalisation removes.
            (share * loss).backward()
        else:
            for delta, gradient in zip(self.deltas, torch.autograd.grad(loss, self.deltas), strict=True):
                delta.grad = gradient
        return reported.item()

    @torch.no_grad()
    def _ascend(self) -> None:
        """Take one projected gradient ascent step for every perturbation."""
        for delta in self.deltas:
            gradient = delta.grad
            if gradient is not None:
                delta += self.rate * gradient / text_norms(gradient).clamp_min(1e-12)
                delta *= (self.size / text_norms(delta).clamp_min(1e-12)).clamp_max(1.0)

    def _perturb(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        """Add this call's perturbation to the output of the table, in passes with gradients."""
        if not self.active or not torch.is_grad_enabled():
            return output
        if self.calls == len(self.deltas):
            self.deltas.append(torch.zeros_like(output).requires_grad_())
        self.calls += 1
        return output + self.deltas[self.calls - 1]


def text_norms(x: Tensor) -> Tensor:
    """Compute the norm over all tokens of each text.

    Args:
        x: ``[B, tokens, width]``.

    Returns:
        ``[B, 1, 1]``.
    """
    return x.flatten(1).norm(dim=1)[:, None, None]
