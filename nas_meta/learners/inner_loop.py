"""Gradient descent on a support set as a differentiable function, and MAML's variants of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def descend(
    loss_of: Callable[[Weights], Tensor],
    weights: Weights,
    names: Sequence[str],
    rates: Mapping[str, Tensor | float],
    steps: int,
    second_order: bool,
) -> Weights:
    """``steps`` of θ ← θ - α ∘ ∇L(θ), differentiable with respect to the weights it starts from.

    Args:
        loss_of: the scalar loss under given weights.
        weights: the starting point; those not in ``names`` stay.
        names: the weights that move.
        rates: α of each name, a number or a tensor of the weight's shape.
        second_order: also differentiate through the gradients: dθ'/dθ = I - α∇²L. Otherwise they count as constants,
            which makes dθ'/dθ = I (first-order MAML).
    """
    weights = dict(weights)
    for _ in range(steps):
        inputs = [weights[name] for name in names]
        gradients = torch.autograd.grad(loss_of(weights), inputs, create_graph=second_order, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None:
                weights[name] = weights[name] - rates[name] * gradient
    return weights
