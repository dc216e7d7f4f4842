"""Adapts the weights and the architecture of a supernet to one task; the architecture hardens during adaptation.

This is the task learner of MetaNAS (Elsken, Staffler, Metzen and Hutter 2020, "Meta-Learning of Neural Architectures
for Few-Shot Learning"). In every step j of a task, both follow the gradient of the task's loss,

    w ← w - λ_task ∇_w L(w, α),    α ← α - ξ_task ∇_α L(w, α)    (their equations 3 and 4, here with Adam),

and candidates are weighted by softmax(α / τ_j). The temperature τ_j falls to almost zero ("soft pruning", their section
3.3), so that the mixture ends as a single architecture, which needs no further training.
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

PRUNE_BELOW = 1e-5  # candidates with a smaller weight are pruned
SCALE = 10.0  # squared length of the embeddings that the head classifies


class TaskOptions(Protocol):
    """The options of a task: learning rates of weights, architecture and head, and the last temperature."""

    task_lr: float
    task_arch_lr: float
    head_lr: float
    last_temperature: float


class Tempered(nn.Module):
    """The softmax of a supernet's choices, softmax(α / τ), with weights below ``PRUNE_BELOW`` set to zero.

    Attributes:
        temperature: τ.
    """

    temperature = 1.0

    def forward(self, alpha: Tensor) -> Tensor:
        weight = (alpha / self.temperature).softmax(-1)
        # Pruned because tiny (denormal) weights would slow down every candidate and its gradient on a CPU.
        return weight * (weight >= PRUNE_BELOW)


@dataclass
class Head:
    """A linear classifier of embeddings of length √SCALE.

    Attributes:
        weight: ``[N, D]``.
        bias: ``[N]``.
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        """Return the logits ``[M, N]`` of embeddings ``[M, D]``."""
        return F.linear(z, self.weight, self.bias)

    @classmethod
    def at_prototypes(cls, support: Sequence[Tensor]) -> Head:
        """Return the head that classifies by the nearest prototype.

        W_k = 2c_k and b_k = -||c_k||² (Triantafillou et al. 2020), with c_k the mean embedding of class k.

        Args:
            support: The support embeddings ``[K, D]`` of each class.

        Returns:
            The head, whose tensors require gradients.
        """
        prototypes = torch.stack([z.mean(0) for z in support])
        return cls((2 * prototypes).requires_grad_(), (-prototypes.square().sum(1)).requires_grad_())


class TaskLearner:
    """Adapts the weights and architecture parameters of a supernet to one task, in place.

    Args:
        encoder: The encoder with the supernet as its model, whose choices are NNI's super-modules.
        modules: Controls the supernet's choices.
        softmax: The softmax of the supernet's choices.
        options: The options of a task.

    Attributes:
        weights: The weights that are adapted.
        alphas: The architecture parameters.
    """

    def __init__(self, encoder: Encoder, modules: SuperModules, softmax: Tempered, options: TaskOptions):
        self.encoder, self.modules, self.softmax, self.options = encoder, modules, softmax, options
        self.weights = list(encoder.body_parameters(train_embeddings=False))
        self.alphas = list(modules.alphas.values())

    @property
    def moving(self) -> list[nn.Parameter]:
        """All parameters that are adapted: the weights, then the architecture parameters."""
        return [*self.weights, *self.alphas]

    def features(self, pool: Pool, indices: np.ndarray) -> Tensor:
        """Return the embeddings of examples.

        Args:
            pool: The pool of the examples.
            indices: The examples.

        Returns:
            ``[len(indices), D]``, of length √SCALE.
        """
        return scaled_embeddings(self.encoder, pool, indices)

    def adapt(
        self, pool: Pool, support: Sequence[np.ndarray], indices: np.ndarray, labels: np.ndarray, steps: int
    ) -> tuple[Head, float]:
        """Adapt weights, architecture and a head by gradient steps; the head starts at the prototypes.

        Args:
            pool: The pool of the task's examples.
            support: The indices of the support examples of each class, which define the prototypes.
            indices: The examples to learn from, ``[M]``.
            labels: Their classes, ``[M]``.
            steps: The number of gradient steps.

        Returns:
            The head, and the loss of the last step.
        """
        self.softmax.temperature = 1.0
        with torch.no_grad():
            embeddings = self.features(pool, np.concatenate(support)).split([len(rows) for rows in support])
        head, o = Head.at_prototypes(embeddings), self.options
        groups = [(self.weights, o.task_lr), (self.alphas, o.task_arch_lr), ([head.weight, head.bias], o.head_lr)]
        optimizer = torch.optim.Adam([{"params": p, "lr": lr} for p, lr in groups], betas=(0.5, 0.999))
        targets = torch.from_numpy(labels).to(embeddings[0].device)
        for step in range(steps):
            self.softmax.temperature = temperature(step, steps, o.last_temperature)
            loss = F.cross_entropy(head(self.features(pool, indices)), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return head, float(loss.detach())

    def probabilities(self) -> Mapping[str, list[float]]:
        """Return softmax(α) of every choice. The temperature is left out: it does not change the order of the values.

        Returns:
            Lists in the order of the choice's values, by its name.
        """
        return {name: p.tolist() for name, p in self.modules.probabilities().items()}


def scaled_embeddings(encoder: Encoder, pool: Pool, indices: np.ndarray) -> Tensor:
    """Return embeddings of length √SCALE.

    Args:
        encoder: The encoder.
        pool: The pool of the examples.
        indices: The examples.

    Returns:
        ``[len(indices), D]``.
    """
    return SCALE**0.5 * F.normalize(encoder.embed(pool, indices), dim=-1)


def temperature(step: int, steps: int, last: float) -> float:
    """Return the temperature τ of a step: it falls geometrically, from just below 1 to ``last``.

    Args:
        step: The step, from 0.
        steps: The number of steps.
        last: The temperature of the last step.
    """
    return last ** ((step + 1) / steps)
