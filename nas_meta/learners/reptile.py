"""Reptile (Nichol, Achiam and Schulman, 2018, "On First-Order Meta-Learning Algorithms").

Reptile takes k steps of Adam on each task of a batch, which give weights W_i, and moves the initialisation towards
their mean: φ ← φ + ε · 1/n Σ (W_i - φ) (algorithm 2 of the paper), where ε falls linearly to zero (section 6). The
inner Adam has β1 = 0. Its second moments carry over from task to task while the weights are reset to φ, and evaluation
starts from the second moments of training, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim.adamw import adamw

from nas_meta.learners.base import Classify, Step, finite, freeze_all_but, task_loss
from nas_meta.learners.inner_loop.moving_parameters import AdaptationOptions, AdaptingLearner
from nas_meta.learners.training.options import rate_factor, set_dropout
from nas_meta.learners.training.regularisation import Regularisation, regularise
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


class ReptileOptions(AdaptationOptions):
    """Options of Reptile."""

    lr: float = Field(2e-5, gt=0, description="learning rate of the inner Adam for the encoder")
    learned_lr: float = Field(1e-2, gt=0, description="learning rate of the inner Adam for the head")
    inner_steps: int = Field(4, ge=1, description="Adam steps on a task during meta-training")
    adapt_steps: int = Field(10, ge=1, description="Adam steps on a support set during evaluation")
    inner_batch: int = Field(10, ge=1, description="examples per Adam step during meta-training")
    outer_lr: float = Field(0.2, gt=0, le=1, description="initial step size ε towards the mean of the tasks' weights")
    beta2: float = Field(0.999, gt=0, lt=1, description="decay rate β2 of Adam's second moments")
    scale: float | None = Field(
        10.0, gt=0, description="squared norm to which embeddings are scaled before the head; null does not scale them"
    )
    meta_batch: int = Field(2, ge=1, description="tasks per meta-training step; their final weights are averaged")


class SecondMoments(nn.Module):
    """Adam with β1 = 0, whose state is part of the encoder's: v ← β2 v + (1 - β2) g², θ ← θ - α g / (√v̂ + 1e-8).

    v̂ = v / (1 - β2ᵗ) is the bias-corrected second moment after t steps.

    Args:
        shapes: The shape of each parameter.
    """

    def __init__(self, shapes: list[torch.Size]):
        super().__init__()
        self.moments = [f"v{i}" for i in range(len(shapes))]
        for name, shape in zip(self.moments, shapes, strict=True):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def step(self, parameters: list[nn.Parameter], rates: list[float], beta2: float, weight_decay: float) -> None:
        """Take one step with decoupled weight decay; parameters without a gradient stay.

        Args:
            parameters: The parameters, in the order of ``shapes``, changed in place.
            rates: The learning rate α of each parameter.
            beta2: β2.
            weight_decay: Share of α by which a parameter shrinks in addition.
        """
        moments = [getattr(self, name) for name in self.moments]
        with_gradient = [(p, r, v) for p, r, v in zip(parameters, rates, moments, strict=True) if p.grad is not None]
        for rate in dict.fromkeys(rates):
            group = [(p, v) for p, r, v in with_gradient if r == rate]
            adamw(
                [p for p, _ in group], [p.grad for p, _ in group],
                exp_avgs=[torch.zeros_like(p) for p, _ in group],  # β1 = 0: replaced by the gradients
                exp_avg_sqs=[v for _, v in group], max_exp_avg_sqs=[],
                state_steps=[self.steps.float().clone() for _ in group],
                fused=True, amsgrad=False, maximize=False,
                beta1=0.0, beta2=beta2, lr=rate, weight_decay=weight_decay, eps=1e-8,
            )  # fmt: skip
        self.steps += 1


class Reptile(AdaptingLearner):
    """Reptile: moves the initialisation towards the weights that Adam reaches on each task."""

    Options = ReptileOptions
    any_ways = False

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        head = nn.Linear(encoder.width, ways)
        body = self.adapted(encoder).values()
        return nn.ModuleDict({"head": head, "adam": SecondMoments([p.shape for p in (*body, *head.parameters())])})

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Compute the head's loss on all examples of an episode, support and query examples alike."""
        labels = np.concatenate([episode.support_labels, episode.labels])
        return self.loss(encoder, pool, episode.indices, labels)

    def loss(self, encoder: Encoder, pool: Pool, indices: np.ndarray, labels: np.ndarray) -> Tensor:
        """Compute the head's loss on examples.

        Args:
            encoder: The encoder, with its head.
            pool: The examples that ``indices`` refers to.
            indices: ``[M]``, the examples.
            labels: ``[M]``, their classes in the episode, or real-valued targets.

        Returns:
            A differentiable scalar.
        """
        outputs = self.logits(encoder, pool, indices)
        return task_loss(outputs, torch.from_numpy(labels).to(outputs.device))

    def logits(self, encoder: Encoder, pool: Pool, indices: np.ndarray) -> Tensor:
        """Compute the head's logits.

        Args:
            encoder: The encoder, with its head.
            pool: The examples that ``indices`` refers to.
            indices: The examples.

        Returns:
            ``[len(indices), N]``.
        """
        z = encoder.embed(pool, indices)
        scale = self.options.scale
        return encoder.learned["head"](z if scale is None else scale**0.5 * F.normalize(z, dim=-1))

    def meta_train(
        self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode], start: Mapping[str, Any] | None = None
    ) -> Iterator[Step]:
        training = self.options.training
        set_dropout(encoder.model, training)
        # Adam's second moments are buffers of the encoder, restored with its weights.
        done = 0 if start is None else start["step"]
        with regularise(encoder, training) as regularisation:
            yield from self._steps(encoder, pool, draw, regularisation, done)

    def _steps(
        self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode], regularisation: Regularisation, done: int
    ) -> Iterator[Step]:
        """Train from step ``done`` + 1 on."""
        options, training = self.options, self.options.training
        trained, rates = self._trained(encoder)
        initialisation = [p.detach().clone() for p in trained]  # φ
        for step in range(done, options.steps):
            encoder.train()
            factor = rate_factor(training, step, options.steps)
            current_rates = [factor * rate for rate in rates]
            total, mean = 0.0, [torch.zeros_like(p) for p in initialisation]
            for i in range(step * options.meta_batch, (step + 1) * options.meta_batch):
                task = draw(i)
                labels = np.concatenate([task.support_labels, task.labels])
                rng = np.random.default_rng(i)
                for _ in range(options.inner_steps):
                    rows = rng.choice(len(labels), min(options.inner_batch, len(labels)), replace=False)
                    x, y = task.indices[rows], labels[rows]
                    loss = regularisation.backward(lambda x=x, y=y: self.loss(encoder, pool, x, y))
                    total += finite(loss, step + 1) / (options.meta_batch * options.inner_steps)
                    self._descend(encoder, trained, current_rates)
                for summed, p in zip(mean, trained, strict=True):
                    summed.add_(p.detach() / options.meta_batch)
                set_values(trained, initialisation)
            outer = options.outer_lr * (1 - step / options.steps)
            for p, end in zip(initialisation, mean, strict=True):
                p.lerp_(end, outer)
            set_values(trained, initialisation)
            yield Step(step + 1, total, state=partial(dict, step=step + 1))

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        with self.adapting(encoder, pool, episode) as classify:
            return classify(episode.query.ravel())

    @contextmanager
    def adapting(self, encoder: Encoder, pool: Pool, episode: Episode) -> Iterator[Classify]:
        trained, rates = self._trained(encoder)
        adam = encoder.learned["adam"]
        weights = [p.detach().clone() for p in trained]
        moments = {n: b.clone() for n, b in adam.state_dict().items()}
        encoder.eval()

        def classify(queries: np.ndarray) -> Tensor:
            with torch.no_grad():
                return self.logits(encoder, pool, queries)

        try:
            with torch.enable_grad():
                for _ in range(self.options.adapt_steps):
                    loss = self.loss(encoder, pool, episode.support.ravel(), episode.support_labels)
                    loss.backward()
                    self._descend(encoder, trained, rates)
            yield classify
        finally:
            set_values(trained, weights)
            adam.load_state_dict(moments)

    def _trained(self, encoder: Encoder) -> tuple[list[nn.Parameter], list[float]]:
        """Freeze all other parameters; return the parameters that a task trains, and the learning rate of each."""
        body = freeze_all_but(encoder, self.adapted(encoder).values())
        head = list(encoder.learned["head"].parameters())
        return [*body, *head], [self.options.lr] * len(body) + [self.options.learned_lr] * len(head)

    def _descend(self, encoder: Encoder, trained: list[nn.Parameter], rates: list[float]) -> None:
        """Take one step of the inner Adam and clear the gradients."""
        torch.nn.utils.clip_grad_norm_(trained, self.options.training.clip)
        encoder.learned["adam"].step(trained, rates, self.options.beta2, self.options.training.weight_decay)
        for parameter in trained:
            parameter.grad = None


@torch.no_grad()
def set_values(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    """Copy values into parameters.

    Args:
        parameters: The parameters, changed in place.
        values: A tensor of the same shape for each parameter.
    """
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
