"""Cross-entropy over a large vocabulary without the whole matrix of logits.

Of 4,096 tokens and a vocabulary of 30,522 that is half a gigabyte, several times over. Here a few hundred rows at a
time give their loss and at once their gradients, which the backward pass then only scales (Hsu et al. 2024, "Liger
Kernel", section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 512  # whose logits exist at a time


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        need_states, need_weight, need_bias, _ = ctx.needs_input_grad
        loss = torch.zeros((), dtype=torch.promote_types(states.dtype, torch.float32), device=states.device)
        to_states = torch.empty_like(states) if need_states else None
        to_weight = torch.zeros_like(weight) if need_weight else None
        to_bias = torch.zeros_like(bias) if need_bias else None
        count = max(1, len(targets))
        for part in range(0, len(targets), ROWS):
            here, wanted = states[part : part + ROWS], targets[part : part + ROWS, None]
            logits = F.linear(here, weight, bias)
            narrow = logits.dtype  # bfloat16 within autocast
            told = logits.log_softmax(1, dtype=loss.dtype)
            loss -= told.gather(1, wanted).sum()
            # Of the sum of the losses with respect to the logits: softmax - one at the target.
            slope = told.exp_().scatter_add_(1, wanted, -torch.ones_like(wanted, dtype=told.dtype))
            if to_bias is not None:
                to_bias += slope.sum(0) / count
            slope, here = slope.to(narrow), here.to(narrow)
            if to_states is not None:
                to_states[part : part + ROWS] = slope @ weight.to(narrow) / count
            if to_weight is not None and narrow == to_weight.dtype:
                to_weight.addmm_(slope.T, here, alpha=1 / count)
            elif to_weight is not None:
                to_weight += slope.T @ here / count
        ctx.save_for_backward(*(g if g is not None else loss.new_empty(0) for g in (to_states, to_weight, to_bias)))
        return loss / count

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        return (*(g * slope if n else None for g, n in zip(ctx.saved_tensors, needed[:3], strict=True)), None)


def linear_cross_entropy(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """The mean of -log softmax(states · weightᵀ + bias)[target], of which the gradients are taken along.

    Args:
        states: ``[N, D]``.
        weight: ``[V, D]``.
        bias: ``[V]``, or None.
        targets: ``[N]``, indices below V.
    """
    return _LinearCrossEntropy.apply(states, weight, bias, targets)
