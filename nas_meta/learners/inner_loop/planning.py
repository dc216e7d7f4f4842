"""How the inner loops of a meta-batch run: batched or one by one, with graphs kept or recomputed.

The decision depends on sizes and free memory only and is made before the first step; it never depends on a clock, so
that a trial stays a function of its inputs. All plans give the same gradients.
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

# Multiply-adds of one pass over a task's support set. Below this number, one call for all tasks is faster on a CPU,
# because the overhead of calls dominates; above it, the arithmetic does (benchmarks/README.md, "inner loops").
SMALL_TASK = 6e6
GIB = 2**30


class GradientLearner(Protocol):
    """The interface that planning needs of a learner with a gradient-based inner loop, such as MAML.

    Attributes:
        options: Options with ``inner_steps``, ``first_order`` and ``memory_limit``.
    """

    options: Any

    def adapted(self, encoder: Encoder) -> dict[str, nn.Parameter]:
        """Return the encoder's parameters that the inner loop changes, by name."""

    def probe(self, encoder: Encoder, pool: Pool, indices: np.ndarray, steps: int) -> Tensor:
        """Run a second-order inner loop, for measuring how much memory its graph takes.

        Args:
            encoder: The encoder.
            pool: The examples that ``indices`` refers to.
            indices: The examples that serve both as support set and as query set.
            steps: Number of inner steps.

        Returns:
            A differentiable scalar.
        """


@dataclass(frozen=True)
class Plan:
    """How the inner loops of a meta-batch run.

    Attributes:
        batched: Whether all tasks run in one batch (``torch.func.vmap``); otherwise one after the other.
        checkpointed: Whether the graphs of inner steps are recomputed in the backward pass; otherwise they are kept.
    """

    batched: bool = False
    checkpointed: bool = False


def plan(
    learner: GradientLearner, encoder: Encoder, pool: Pool, tasks: Sequence[Episode], regularised: bool = False
) -> Plan:
    """Choose the fastest plan that fits into memory: batched, else graphs kept, else checkpointed, else an error.

    A decision list over two estimates from :func:`second_order_bytes`, the bytes of one task with all graphs kept and
    with graphs recomputed. Both are 0 for first-order loops. Invariant: the chosen plan's estimate is within the limit
    (``memory_limit``, or the memory available to the trial), and the gradients do not depend on the choice.

    Example: two tasks need 3 GiB each with graphs kept, or 1 GiB each with graphs recomputed.

    - Limit 8 GiB: batched (2 · 3 ≤ 8), if the tasks are small enough to gain from it and the model supports ``vmap``.
    - Limit 4 GiB: one by one, graphs kept (3 ≤ 4 < 6).
    - Limit 2 GiB: one by one, checkpointed (1 ≤ 2 < 3).
    - Limit 0.5 GiB: TrialError.

    Args:
        learner: The learner with the inner loop.
        encoder: The encoder.
        pool: The examples that the episodes' indices refer to.
        tasks: The first meta-batch; the others must have its shape.
        regularised: Whether regularisation acts on embeddings. It works call by call, so that tasks must run one by
            one, with graphs kept.

    Raises:
        TrialError: Even the most economical plan exceeds the limit for a single task.
    """
    device = next(encoder.parameters()).device
    adapted = learner.adapted(encoder)
    if not adapted:
        return Plan()
    kept, recomputed = 0.0, 0.0
    if not learner.options.first_order:
        kept, recomputed = second_order_bytes(learner, encoder, pool, tasks[0])
    configured = learner.options.memory_limit
    limit = configured * GIB if configured else free_memory(device)
    if regularised and kept > limit:
        raise TrialError(
            f"a second-order inner loop of {learner.options.inner_steps} steps needs about {kept / GIB:.1f} GiB per "
            f"task, but {limit / GIB:.1f} GiB are available, and it cannot be checkpointed because learner.training "
            "acts on embeddings; set learner.first_order: true"
        )
    if regularised:
        return Plan()
    if recomputed > limit:
        raise TrialError(
            f"a second-order inner loop of {learner.options.inner_steps} steps needs about {recomputed / GIB:.1f} GiB "
            f"per task even with checkpointing, but {limit / GIB:.1f} GiB are available; set learner.first_order: "
            "true, adapt fewer parameters (learner.adapt), or lower tasks.shots and tasks.queries"
        )
    work = multiply_adds(encoder, pool, tasks[0], sum(p.numel() for p in adapted.values()))
    small = device.type == "cuda" or work < SMALL_TASK
    if len(tasks) > 1 and small and kept * len(tasks) <= limit and works_under_vmap(encoder, pool, tasks):
        return Plan(batched=True)
    return Plan(checkpointed=kept > limit)


def multiply_adds(encoder: Encoder, pool: Pool, task: Episode, parameters: int) -> float:
    """Estimate the multiply-adds of one forward pass over a task's support set.

    Args:
        encoder: The encoder.
        pool: The examples that the episode's indices refer to.
        task: The episode.
        parameters: Number of adapted parameters. For texts, each is counted once per token.
    """
    inputs = encoder.stacked(pool, [task.support.ravel()])
    if pool.modality == TEXT:
        return parameters * inputs["input_ids"].numel()
    return flops(encoder.model, {name: tensor[0] for name, tensor in inputs.items()}) / 2


def works_under_vmap(encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> bool:
    """Return whether the model gives the same embeddings under ``torch.func.vmap`` as without it.

    This is tested on one example of each task, because a plugin's model may not support ``vmap``.

    Args:
        encoder: The encoder.
        pool: The examples that the episodes' indices refer to.
        tasks: The episodes of a meta-batch.
    """
    if encoder.compute.precision != "fp32":
        return False  # vmap has no rule for gradients through autocast
    sets = [task.query.ravel()[:1] for task in tasks]
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad(), differentiable_kernels(vmapped=True):
            batched = vmap(lambda inputs: functional_call(encoder, {}, (), inputs))(encoder.stacked(pool, sets))
            expected = torch.stack([encoder.embed(pool, indices) for indices in sets])
        return bool(torch.allclose(batched, expected, atol=1e-4, rtol=1e-3))
    except (RuntimeError, ValueError, TypeError):
        return False
    finally:
        encoder.train(training)


def second_order_bytes(learner: GradientLearner, encoder: Encoder, pool: Pool, task: Episode) -> tuple[float, float]:
    """Estimate the memory of one task's second-order gradient by linear extrapolation from probes.

    The bytes that autograd saves grow linearly with the number of examples, so probes with one and two copies of the
    longest example give the constant part and the part per example. Texts count by their tokens.

    Example, in MB: an inner step saves 5 for one example and 7 for two, the query pass 1 per example, and the adapted
    weights take 4. If the support texts have as many tokens as 6 longest examples and the query texts as many as 9, a
    step saves 5 + 2 · 5 = 15, the query pass 9, and the backward pass peaks at 15 + 9 + 2 · 4 = 32. Three steps need
    3 · 15 + 32 = 77 with graphs kept, and 15 + 3 · 4 + 32 = 59 with graphs recomputed.

    Args:
        learner: The learner with the inner loop.
        encoder: The encoder.
        pool: The examples that the episode's indices refer to.
        task: The episode.

    Returns:
        Bytes with the graphs of all steps kept, and bytes with the graph of one step at a time recomputed.
    """
    longest = task.indices[np.argmax(pool.lengths[task.indices])]
    tokens = max(1, int(pool.lengths[longest]))
    # Sizes of the two sets in units of the longest example.
    support, query = (pool.lengths[part.ravel()].clip(1).sum() / tokens for part in (task.support, task.query))

    def probe_bytes(steps: int, examples: int) -> int:
        indices = np.repeat(longest, examples)
        return saved_bytes(lambda: learner.probe(encoder, pool, indices, steps))

    step_of_one, step_of_two = (probe_bytes(1, n) - probe_bytes(0, n) for n in (1, 2))
    query_bytes = (probe_bytes(0, 2) - probe_bytes(0, 1)) * query
    step_bytes = step_of_one + (step_of_two - step_of_one) * (support - 1)
    weights = sum(p.numel() * p.element_size() for p in learner.adapted(encoder).values())
    steps = learner.options.inner_steps
    # On top of what was saved, the backward pass holds the gradients of one step, and the meta-gradient twice.
    peak = step_bytes + query_bytes + 2 * weights
    return steps * step_bytes + peak, step_bytes + steps * weights + peak


def saved_bytes(function: Callable[[], Tensor]) -> int:
    """Count the bytes that autograd saves for the backward pass of a function, each storage once.

    Args:
        function: Runs a forward pass and returns its result.
    """
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # The reference keeps the storage alive, so that no later tensor can reuse its address.
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    size = sum(t.untyped_storage().nbytes() for t in saved.values())
    del result
    return size
