"""Gradient descent on a support set as a differentiable function, and MAML's variants of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

Weights = dict[str, Tensor]
Loss = Callable[[Weights], Tensor]
Rates = Mapping[str, "Tensor | float"]


@dataclass(frozen=True)
class InnerLoop:
    """How to descend.

    Attributes:
        second_order: also differentiate through the gradients: dθ'/dθ = I - α∇²L. Otherwise they count as constants,
            which makes dθ'/dθ = I (first-order MAML).
        checkpointed: a step's graph is thrown away and computed again when it is needed, so that the memory is that of
            one step instead of all (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). Then the loss
            must reach everything that learns through the weights it is given.
        functional: within ``torch.func.vmap``, where autograd's own gradients do not work.
    """

    steps: int
    second_order: bool
    checkpointed: bool = False
    functional: bool = False


def descend(loss_of: Loss, weights: Weights, names: Sequence[str], rates: Rates, loop: InnerLoop) -> Weights:
    """θ ← θ - α ∘ ∇L(θ), repeated; differentiable with respect to the weights it starts from.

    Args:
        loss_of: the scalar loss under given weights.
        weights: the starting point; those not in ``names`` stay.
        names: the weights that move.
        rates: α of each name, a number or a tensor of the weight's shape.
    """
    weights = dict(weights)
    for _ in range(loop.steps):
        if loop.checkpointed and loop.second_order:
            weights = _checkpointed_step(loss_of, weights, names, rates)
        else:
            gradients = _gradients(loss_of, weights, names, loop.second_order, loop.functional)
            weights = _moved(weights, names, gradients, rates)
    return weights


def _gradients(
    loss_of: Loss, weights: Weights, names: Sequence[str], second_order: bool, functional: bool = False
) -> Sequence[Tensor | None]:
    if functional:
        found = grad(lambda moving: loss_of({**weights, **moving}))({name: weights[name] for name in names})
        return [found[name] if second_order else found[name].detach() for name in names]
    inputs = [weights[name] for name in names]
    return torch.autograd.grad(loss_of(weights), inputs, create_graph=second_order, allow_unused=True)


def _moved(weights: Weights, names: Sequence[str], gradients: Sequence[Tensor | None], rates: Rates) -> Weights:
    moved = {n: _stepped(weights[n], g, rates[n]) for n, g in zip(names, gradients, strict=True) if g is not None}
    return {**weights, **moved}


def _stepped(weight: Tensor, gradient: Tensor, rate: Tensor | float) -> Tensor:
    # In one pass over the numbers, which is most of what a step costs beside the model.
    if isinstance(rate, Tensor):
        return torch.addcmul(weight, rate, gradient, value=-1)
    return torch.add(weight, gradient, alpha=-rate)


def _checkpointed_step(loss_of: Loss, weights: Weights, names: Sequence[str], rates: Rates) -> Weights:
    learned_rates = [name for name in names if isinstance(rates[name], Tensor)]

    def step(tensors: Sequence[Tensor], second_order: bool) -> list[Tensor]:
        now = dict(zip(weights, tensors, strict=False))
        own = {**rates, **dict(zip(learned_rates, tensors[len(weights) :], strict=True))}
        moved = _moved(now, names, _gradients(loss_of, now, names, second_order), own)
        return [moved[name] for name in names]

    ends = _Recomputed.apply(step, *weights.values(), *(rates[name] for name in learned_rates))
    return {**weights, **dict(zip(names, ends, strict=True))}


class _Recomputed(torch.autograd.Function):
    """A step without its graph; backward computes it once more, with the same random numbers."""

    @staticmethod
    def forward(ctx: Any, step: Callable[[Sequence[Tensor], bool], list[Tensor]], *tensors: Tensor) -> tuple:
        ctx.step = step
        ctx.random = torch.get_rng_state(), _cuda_states(tensors)
        ctx.save_for_backward(*tensors)
        with torch.enable_grad():
            inputs = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
            return tuple(end.detach() for end in step(inputs, False))

    @staticmethod
    def backward(ctx: Any, *of_ends: Tensor) -> tuple:
        tensors = ctx.saved_tensors
        devices = [t.device for t in tensors if t.is_cuda][:1]
        with torch.enable_grad(), torch.random.fork_rng(devices):
            torch.set_rng_state(ctx.random[0])
            for device, state in zip(devices, ctx.random[1], strict=True):
                torch.cuda.set_rng_state(state, device)
            inputs = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
            ends = ctx.step(inputs, True)
            learning = [t for t in inputs if t.requires_grad]
            found = iter(torch.autograd.grad(ends, learning, of_ends, allow_unused=True))
        return None, *(next(found) if t.requires_grad else None for t in inputs)


def _cuda_states(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cuda.get_rng_state(t.device) for t in tensors if t.is_cuda][:1]
