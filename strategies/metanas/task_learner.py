"""Adapting weights and architecture to one task together, the architecture hardening as it goes.

The task learner of MetaNAS (Elsken, Staffler, Metzen and Hutter 2020, "Meta-Learning of Neural Architectures for
Few-Shot Learning"). In every step j of a task both move along the gradient of the task's loss,

    w ← w - λ_task ∇_w L(w, α),    α ← α - ξ_task ∇_α L(w, α)    (their equations 3 and 4, here with Adam),

and candidates are weighted with softmax(α / τ_j), τ falling to almost nothing ("soft pruning", their section 3.3), so
that at its end the mixture is one architecture already and nothing has to be trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_meta.models.encoder import Encoder
from nas_meta.tasks.pool import Pool
from strategies.one_shot.nni_supermodules import SuperModules

PRUNED = 1e-5  # candidates with a smaller share are out
SCALE = 10.0  # squared length of the embeddings that the head sees


class TaskOptions(Protocol):
    """Learning rates of a task, and the temperature at its end."""

    task_lr: float
    task_arch_lr: float
    head_lr: float
    last_temperature: float


class Tempered(nn.Module):
    """softmax(α / τ), and nothing where that is below ``PRUNED``."""

    temperature = 1.0

    def forward(self, alpha: Tensor) -> Tensor:
        share = (alpha / self.temperature).softmax(-1)
        # Cut, for a CPU is slow with the almost-nothing that would go on through every candidate and its gradient.
        return share * (share >= PRUNED)


@dataclass
class Head:
    """A linear classifier over embeddings of length √SCALE: ``weight`` ``[N, D]`` and ``bias`` ``[N]``."""

    weight: Tensor
    bias: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        """Logits ``[M, N]`` of embeddings ``[M, D]``."""
        return F.linear(z, self.weight, self.bias)

    @classmethod
    def at_prototypes(cls, support: Sequence[Tensor]) -> Head:
        """W_k = 2c_k and b_k = -||c_k||² (Triantafillou et al. 2020), of each class's support embeddings ``[K, D]``."""
        prototypes = torch.stack([z.mean(0) for z in support])
        return cls((2 * prototypes).requires_grad_(), (-prototypes.square().sum(1)).requires_grad_())


class TaskLearner:
    """Moves a mutated supernet's weights and architecture parameters on one task, in place.

    Args:
        encoder: with the supernet; its architecture parameters are frozen for others.
        softmax: that of the supernet's choices.
    """

    def __init__(self, encoder: Encoder, modules: SuperModules, softmax: Tempered, options: TaskOptions):
        self.encoder, self.modules, self.softmax, self.options = encoder, modules, softmax, options
        self.weights = list(encoder.body_parameters(train_embeddings=False))
        self.alphas = list(modules.alphas.values())

    @property
    def moving(self) -> list[nn.Parameter]:
        """Weights, then architecture parameters."""
        return [*self.weights, *self.alphas]

    def features(self, pool: Pool, indices: np.ndarray) -> Tensor:
        """``[len(indices), D]``, of length √SCALE."""
        return embedded(self.encoder, pool, indices)

    def adapt(
        self, pool: Pool, support: Sequence[np.ndarray], indices: np.ndarray, labels: np.ndarray, steps: int
    ) -> tuple[Head, float]:
        """Takes ``steps`` steps on the given examples; the head starts at the prototypes of the support set.

        Args:
            support: of each class the indices of its examples.

        Returns:
            the head, and the loss of the last step.
        """
        self.softmax.temperature = 1.0
        with torch.no_grad():
            start = self.features(pool, np.concatenate(support)).split([len(rows) for rows in support])
        head, o = Head.at_prototypes(start), self.options
        groups = [(self.weights, o.task_lr), (self.alphas, o.task_arch_lr), ([head.weight, head.bias], o.head_lr)]
        optimizer = torch.optim.Adam([{"params": p, "lr": lr} for p, lr in groups], betas=(0.5, 0.999))
        targets = torch.from_numpy(labels).to(start[0].device)
        for step in range(steps):
            self.softmax.temperature = temperature(step, steps, o.last_temperature)
            loss = F.cross_entropy(head(self.features(pool, indices)), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return head, float(loss.detach())

    def probabilities(self) -> Mapping[str, list[float]]:
        """softmax(α) of every choice; the temperature does not change what is most probable."""
        return {name: p.tolist() for name, p in self.modules.probabilities().items()}


def embedded(encoder: Encoder, pool: Pool, indices: np.ndarray) -> Tensor:
    """Embeddings of length √SCALE, ``[len(indices), D]``."""
    return SCALE**0.5 * F.normalize(encoder.embed(pool, indices), dim=-1)


def temperature(step: int, steps: int, last: float) -> float:
    """τ of a step, from 0: geometric, ``last`` in the last one."""
    return last ** ((step + 1) / steps)
