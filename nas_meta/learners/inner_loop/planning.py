"""How a meta-batch's inner loops are run: all at once or one by one, their graphs kept or computed again.

Decided from sizes, before the first step and never from a clock, so that a trial stays a function of its inputs. The
result is the same either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nas_meta.errors import TrialError
from nas_meta.learners.inner_loop.kernels import differentiable_kernels
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import flops, free_memory
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.examples import TEXT
from nas_meta.tasks.pool import Pool

# Multiply-adds of one pass over a task's support set under which one call for all tasks is faster on a CPU: there it
# is the calls that cost, above it the arithmetic (benchmarks/README.md, "inner loops").
SMALL_TASK = 6e6
GIB = 2**30


class GradientLearner(Protocol):
    """What planning asks of a learner that adapts by gradient steps, such as MAML.

    Attributes:
        options: With ``inner_steps``, ``first_order`` and ``memory_limit``.
    """

    options: Any

    def adapted(self, encoder: Encoder) -> dict[str, nn.Parameter]:
        """The parameters that the inner loop changes, by name."""

    def probe(self, encoder: Encoder, pool: Pool, indices: np.ndarray, steps: int) -> Tensor:
        """Run a second-order inner loop on these examples, to measure what it takes."""


@dataclass(frozen=True)
class Plan:
    """``batched``: all tasks in one ``vmap``; ``checkpointed``: inner steps are computed again in the backward pass."""

    batched: bool = False
    checkpointed: bool = False


def plan(
    learner: GradientLearner, encoder: Encoder, pool: Pool, tasks: Sequence[Episode], regularised: bool = False
) -> Plan:
    """How to run meta-batches like this one; with regularisation of embeddings, task by task and with graphs kept.

    Raises:
        TrialError: one task would not fit into memory even with its inner steps computed again.
    """
    device = next(encoder.parameters()).device
    moving = learner.adapted(encoder)
    if not moving:
        return Plan()
    kept, recomputed = 0.0, 0.0
    if not learner.options.first_order:
        kept, recomputed = second_order_bytes(learner, encoder, pool, tasks[0])
    given = learner.options.memory_limit
    limit = given * GIB if given else free_memory(device)
    if regularised and kept > limit:
        raise TrialError(
            f"a second-order inner loop of {learner.options.inner_steps} steps needs about {kept / GIB:.1f} GiB a "
            f"task, {limit / GIB:.1f} GiB are there, and with learner.training acting on embeddings it cannot be "
            "checkpointed; set learner.first_order: true"
        )
    if regularised:
        return Plan()
    if recomputed > limit:
        raise TrialError(
            f"a second-order inner loop of {learner.options.inner_steps} steps needs about {recomputed / GIB:.1f} GiB "
            f"a task even when it is checkpointed, and {limit / GIB:.1f} GiB are there; set learner.first_order: true, "
            "let fewer parameters move (learner.adapt), or lower tasks.shots and tasks.queries"
        )
    work = multiply_adds(encoder, pool, tasks[0], sum(p.numel() for p in moving.values()))
    small = device.type == "cuda" or work < SMALL_TASK
    if len(tasks) > 1 and small and kept * len(tasks) <= limit and works_under_vmap(encoder, pool, tasks):
        return Plan(batched=True)
    return Plan(checkpointed=kept > limit)


def multiply_adds(encoder: Encoder, pool: Pool, task: Episode, moving: int) -> float:
    """About those of one pass over a task's support set: of texts, the parameters that move times the tokens."""
    inputs = encoder.stacked(pool, [task.support.ravel()])
    if pool.modality == TEXT:
        return moving * inputs["input_ids"].numel()
    return flops(encoder.model, {name: tensor[0] for name, tensor in inputs.items()}) / 2


def works_under_vmap(encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> bool:
    """Whether the model gives the same embeddings when tasks run at once: not every plugin's model bears ``vmap``."""
    if encoder.compute.precision != "fp32":
        return False  # gradients through autocast have no rule there
    sets = [task.query.ravel()[:1] for task in tasks]
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad(), differentiable_kernels(vmapped=True):
            together = vmap(lambda inputs: functional_call(encoder, {}, (), inputs))(encoder.stacked(pool, sets))
            alone = torch.stack([encoder.embed(pool, indices) for indices in sets])
        return bool(torch.allclose(together, alone, atol=1e-4, rtol=1e-3))
    except (RuntimeError, ValueError, TypeError):
        return False
    finally:
        encoder.train(training)


def second_order_bytes(learner: GradientLearner, encoder: Encoder, pool: Pool, task: Episode) -> tuple[float, float]:
    """About how many bytes a task's second-order gradient takes: with every step's graph kept, and recomputed.

    What autograd saves for one step on one example and on two gives the part that grows with them and the part that
    does not; texts count by their tokens.
    """
    longest = task.indices[np.argmax(pool.lengths[task.indices])]
    tokens = max(1, int(pool.lengths[longest]))
    support, queried = (pool.lengths[part.ravel()].clip(1).sum() / tokens for part in (task.support, task.query))

    def saved_by(steps: int, examples: int) -> int:
        indices = np.repeat(longest, examples)
        return saved_bytes(lambda: learner.probe(encoder, pool, indices, steps))

    step = [saved_by(1, n) - saved_by(0, n) for n in (1, 2)]
    query = saved_by(0, 2) - saved_by(0, 1)
    one = step[0] + (step[1] - step[0]) * (support - 1)
    weights = sum(p.numel() * p.element_size() for p in learner.adapted(encoder).values())
    steps, scored = learner.options.inner_steps, query * queried
    # The backward pass holds the gradients of one step beside what was saved, and the meta-gradient twice.
    held = one + scored + 2 * weights
    return steps * one + held, one + steps * weights + held


def saved_bytes(function: Callable[[], Tensor]) -> int:
    """Bytes that autograd saves for the backward pass of a function, each storage once."""
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Held, so that no later tensor takes its address.
        seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        held = function()
    size = sum(t.untyped_storage().nbytes() for t in seen.values())
    del held
    return size
