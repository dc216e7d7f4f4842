"""Gradient descent on a support set as a differentiable function of its starting point.

Weights are dictionaries from names to tensors and are never changed in place, so that a gradient can be taken through
all steps.
"""

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
    """Number of inner steps and how to differentiate through them.

    Attributes:
        steps: Number of gradient steps.
        second_order: Whether to differentiate through the gradients, dθ'/dθ = I - α∇²L. Otherwise they count as
            constants, dθ'/dθ = I (first-order MAML).
        checkpointed: Whether to discard the graph of each step and recompute it in the backward pass, which needs the
            memory of one step instead of all (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). The
            loss must then read every trained tensor from the weights that it is called with. No effect on
            first-order loops, which keep no graph.
        functional: Whether the loop runs inside ``torch.func.vmap``, where ``torch.autograd.grad`` does not work.
    """

    steps: int
    second_order: bool
    checkpointed: bool = False
    functional: bool = False


def descend(loss_of: Loss, weights: Weights, names: Sequence[str], rates: Rates, loop: InnerLoop) -> Weights:
    """Run differentiable gradient descent: θ_{j+1} = θ_j - α ∘ ∇L(θ_j) for a fixed number of steps.

    This is the inner loop of MAML (Finn et al. 2017, section 2.2). Invariant: θ_j is a differentiable function of the
    starting point θ_0 and of α, whether its graph is kept or recomputed; both give the same gradients.

    Example: for L(θ) = ½(θ - 1)², θ_0 = 0 and α = 0.1, one step gives θ_1 = 0.1, and dθ_1/dθ_0 = 1 - α = 0.9. An outer
    loss ½(θ_1 - 2)² has the gradient θ_1 - 2 = -1.9 with respect to θ_1, hence 0.9 · -1.9 = -1.71 with respect to θ_0.
    First-order MAML assumes dθ_1/dθ_0 = 1, which gives -1.9.

    Args:
        loss_of: Computes the scalar loss L under given weights.
        weights: The starting point θ_0 by name, and further weights that the loss reads but no step changes.
        names: The weights that change.
        rates: α for each of ``names``: a number, or a tensor of the weight's shape.
        loop: Number of steps and how to differentiate through them.

    Returns:
        All weights after the last step, by name.
    """
    weights = dict(weights)
    for _ in range(loop.steps):
        if loop.checkpointed and loop.second_order:
            weights = _checkpointed_step(loss_of, weights, names, rates)
        else:
            gradients = _gradients(loss_of, weights, names, loop.second_order, loop.functional)
            weights = _updated(weights, names, gradients, rates)
    return weights


def _gradients(
    loss_of: Loss, weights: Weights, names: Sequence[str], second_order: bool, functional: bool = False
) -> Sequence[Tensor | None]:
    """Compute the gradients of a loss, one per name; None for a weight that the loss does not read."""
    if functional:
        gradients = grad(lambda changing: loss_of({**weights, **changing}))({name: weights[name] for name in names})
        return [gradients[name] if second_order else gradients[name].detach() for name in names]
    inputs = [weights[name] for name in names]
    return torch.autograd.grad(loss_of(weights), inputs, create_graph=second_order, allow_unused=True)


def _updated(weights: Weights, names: Sequence[str], gradients: Sequence[Tensor | None], rates: Rates) -> Weights:
    """Return the weights after one step along the gradients."""
    changed = {n: _step(weights[n], g, rates[n]) for n, g in zip(names, gradients, strict=True) if g is not None}
    return {**weights, **changed}


def _step(weight: Tensor, gradient: Tensor, rate: Tensor | float) -> Tensor:
    """Compute weight - rate ∘ gradient."""
    # Fused operations read the memory once; apart from the model, this is most of the cost of a step.
    if isinstance(rate, Tensor):
        return torch.addcmul(weight, rate, gradient, value=-1)
    return torch.add(weight, gradient, alpha=-rate)


def _checkpointed_step(loss_of: Loss, weights: Weights, names: Sequence[str], rates: Rates) -> Weights:
    """Take one step whose graph is recomputed in the backward pass."""
    learned_rates = [name for name in names if isinstance(rates[name], Tensor)]

    def step(tensors: Sequence[Tensor], second_order: bool) -> list[Tensor]:
        # autograd.Function tracks only positional tensors: the weights come first, then the learned rates.
        current = dict(zip(weights, tensors, strict=False))
        current_rates = {**rates, **dict(zip(learned_rates, tensors[len(weights) :], strict=True))}
        updated = _updated(current, names, _gradients(loss_of, current, names, second_order), current_rates)
        return [updated[name] for name in names]

    outputs = _Recomputed.apply(step, *weights.values(), *(rates[name] for name in learned_rates))
    return {**weights, **dict(zip(names, outputs, strict=True))}


class _Recomputed(torch.autograd.Function):
    """A step that keeps no graph; the backward pass repeats it with the same random numbers."""

    @staticmethod
    def forward(ctx: Any, step: Callable[[Sequence[Tensor], bool], list[Tensor]], *tensors: Tensor) -> tuple:
        ctx.step = step
        ctx.random = torch.get_rng_state(), _cuda_states(tensors)
        ctx.save_for_backward(*tensors)
        with torch.enable_grad():
            inputs = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
            return tuple(output.detach() for output in step(inputs, False))

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple:
        tensors = ctx.saved_tensors
        devices = [t.device for t in tensors if t.is_cuda][:1]
        with torch.enable_grad(), torch.random.fork_rng(devices):
            torch.set_rng_state(ctx.random[0])
            for device, state in zip(devices, ctx.random[1], strict=True):
                torch.cuda.set_rng_state(state, device)
            inputs = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
            outputs = ctx.step(inputs, True)
            differentiable = [t for t in inputs if t.requires_grad]
            gradients = iter(torch.autograd.grad(outputs, differentiable, output_gradients, allow_unused=True))
        return None, *(next(gradients) if t.requires_grad else None for t in inputs)


def _cuda_states(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the random number generator's state of the first GPU among the tensors' devices, if any."""
    return [torch.cuda.get_rng_state(t.device) for t in tensors if t.is_cuda][:1]
