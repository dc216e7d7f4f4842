"""Reptile (Nichol, Achiam and Schulman, 2018, "On First-Order Meta-Learning Algorithms").

For a batch of tasks, k steps of Adam on each give weights W_i, and the initialisation moves towards their mean:
φ ← φ + ε · 1/n Σ (W_i - φ), algorithm 2 of the paper, ε falling linearly to zero (section 6). Inside, Adam has β1 = 0,
and its second moments live on from task to task while the weights go back to φ; a task at scoring starts from the
second moments that training left behind, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim.adamw import adamw

from nas_meta.learners.base import Step, finite, freeze_all_but, task_loss
from nas_meta.learners.inner_loop.moving_parameters import AdaptationOptions, AdaptingLearner
from nas_meta.learners.training.options import Average, rate_factor, set_dropout
from nas_meta.learners.training.regularisation import Regularisation, regularise
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


class ReptileOptions(AdaptationOptions):
    """Options of Reptile."""

    lr: float = Field(2e-5, gt=0, description="learning rate of Adam on a task, for the body")
    learned_lr: float = Field(1e-2, gt=0, description="learning rate of Adam on a task, for the head")
    inner_steps: int = Field(4, ge=1, description="steps of Adam on a task while meta-training")
    adapt_steps: int = Field(10, ge=1, description="steps of Adam on a support set while scoring")
    inner_batch: int = Field(10, ge=1, description="examples in such a step while meta-training")
    outer_lr: float = Field(0.2, gt=0, le=1, description="how far ε the initialisation moves at first")
    beta2: float = Field(0.999, gt=0, lt=1, description="decay of Adam's second moments")
    scale: float | None = Field(
        10.0, gt=0, description="squared length of the embeddings that the head sees; null leaves them as they are"
    )
    meta_batch: int = Field(2, ge=1, description="tasks whose ends are averaged for one step")


class SecondMoments(nn.Module):
    """Adam with β1 = 0: θ ← θ - α g / (√(v / (1 - β2ᵗ)) + 1e-8), v ← β2 v + (1 - β2) g²."""

    def __init__(self, shapes: list[torch.Size]):
        super().__init__()
        self.moments = [f"v{i}" for i in range(len(shapes))]
        for name, shape in zip(self.moments, shapes, strict=True):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def step(self, parameters: list[nn.Parameter], rates: list[float], beta2: float, weight_decay: float) -> None:
        """One step along the gradients of the parameters, with decoupled weight decay."""
        moments = [getattr(self, name) for name in self.moments]
        with_gradient = [(p, r, v) for p, r, v in zip(parameters, rates, moments, strict=True) if p.grad is not None]
        for rate in dict.fromkeys(rates):
            group = [(p, v) for p, r, v in with_gradient if r == rate]
            adamw(
                [p for p, _ in group], [p.grad for p, _ in group],
                exp_avgs=[torch.zeros_like(p) for p, _ in group],  # with β1 = 0 they are the gradients
                exp_avg_sqs=[v for _, v in group], max_exp_avg_sqs=[],
                state_steps=[self.steps.float().clone() for _ in group],
                fused=True, amsgrad=False, maximize=False,
                beta1=0.0, beta2=beta2, lr=rate, weight_decay=weight_decay, eps=1e-8,
            )  # fmt: skip
        self.steps += 1


class Reptile(AdaptingLearner):
    """Reptile: the initialisation moves towards where Adam ends on each task."""

    Options = ReptileOptions
    any_ways = False

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        head = nn.Linear(encoder.width, ways)
        body = self.adapted(encoder).values()
        return nn.ModuleDict({"head": head, "adam": SecondMoments([p.shape for p in (*body, *head.parameters())])})

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Cross-entropy of the head on all examples of an episode, support and query alike."""
        labels = np.concatenate([episode.support_labels, episode.labels])
        return self.loss(encoder, pool, episode.indices, labels)

    def loss(self, encoder: Encoder, pool: Pool, indices: np.ndarray, labels: np.ndarray) -> Tensor:
        """The head's loss on the given examples."""
        outputs = self.logits(encoder, pool, indices)
        return task_loss(outputs, torch.from_numpy(labels).to(outputs.device))

    def logits(self, encoder: Encoder, pool: Pool, indices: np.ndarray) -> Tensor:
        """What the head says, ``[len(indices), N]``."""
        z = encoder.embed(pool, indices)
        scale = self.options.scale
        return encoder.learned["head"](z if scale is None else scale**0.5 * F.normalize(z, dim=-1))

    def meta_train(
        self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode], start: Mapping[str, Any] | None = None
    ) -> Iterator[Step]:
        options, training = self.options, self.options.training
        set_dropout(encoder.model, training)
        moving, _ = self._moving(encoder)
        average = Average(moving, training.average_last, options.steps)
        done = 0
        if start is not None:
            # Adam's second moments are buffers of the encoder, restored with its weights.
            done = start["step"]
            average.load_state_dict(start["average"])
        with regularise(encoder, training) as regularisation:
            yield from self._steps(encoder, pool, draw, regularisation, average, done)

    def _steps(
        self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode], regularisation: Regularisation,
        average: Average, done: int,
    ) -> Iterator[Step]:  # fmt: skip
        options, training = self.options, self.options.training
        moving, rates = self._moving(encoder)
        start = [p.detach().clone() for p in moving]
        for step in range(done, options.steps):
            encoder.train()
            factor = rate_factor(training, step, options.steps)
            now = [factor * rate for rate in rates]
            total, ends = 0.0, [torch.zeros_like(p) for p in start]
            for i in range(step * options.meta_batch, (step + 1) * options.meta_batch):
                task = draw(i)
                labels = np.concatenate([task.support_labels, task.labels])
                rng = np.random.default_rng(i)
                for _ in range(options.inner_steps):
                    rows = rng.choice(len(labels), min(options.inner_batch, len(labels)), replace=False)
                    here, wanted = task.indices[rows], labels[rows]
                    loss = regularisation.backward(lambda i=here, y=wanted: self.loss(encoder, pool, i, y))
                    total += finite(loss, step + 1) / (options.meta_batch * options.inner_steps)
                    self._descend(encoder, moving, now)
                torch._foreach_add_(ends, [p.detach() / options.meta_batch for p in moving])
                set_values(moving, start)
            outer = options.outer_lr * (1 - step / options.steps)
            torch._foreach_lerp_(start, ends, outer)
            set_values(moving, start)
            average.add(step)
            yield Step(step + 1, total, state=partial(_state, step + 1, average))

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        moving, rates = self._moving(encoder)
        adam = encoder.learned["adam"]
        before = [p.detach().clone() for p in moving], {n: b.clone() for n, b in adam.state_dict().items()}
        encoder.eval()
        try:
            with torch.enable_grad():
                for _ in range(self.options.adapt_steps):
                    loss = self.loss(encoder, pool, episode.support.ravel(), episode.support_labels)
                    loss.backward()
                    self._descend(encoder, moving, rates)
            with torch.no_grad():
                return self.logits(encoder, pool, episode.query.ravel())
        finally:
            set_values(moving, before[0])
            adam.load_state_dict(before[1])

    def _moving(self, encoder: Encoder) -> tuple[list[nn.Parameter], list[float]]:
        body = freeze_all_but(encoder, self.adapted(encoder).values())
        head = list(encoder.learned["head"].parameters())
        return [*body, *head], [self.options.lr] * len(body) + [self.options.learned_lr] * len(head)

    def _descend(self, encoder: Encoder, moving: list[nn.Parameter], rates: list[float]) -> None:
        torch.nn.utils.clip_grad_norm_(moving, self.options.training.clip)
        encoder.learned["adam"].step(moving, rates, self.options.beta2, self.options.training.weight_decay)
        for parameter in moving:
            parameter.grad = None


def _state(step: int, average: Average) -> dict[str, Any]:
    return {"step": step, "average": average.state_dict()}


@torch.no_grad()
def set_values(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    """Copies values into parameters."""
    torch._foreach_copy_(parameters, values)
