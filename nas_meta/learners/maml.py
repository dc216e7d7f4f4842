"""Model-agnostic meta-learning (Finn, Abbeel and Levine, 2017, "Model-Agnostic Meta-Learning for Fast Adaptation").

For each task, θ' = θ - α∇L_support(θ), for one or more steps, and θ is trained on Σ L_query(θ'), algorithm 1 of the
paper. The gradient goes through the inner steps: for one step it is (I - α∇²L_support(θ)) ∇L_query(θ').
``first_order: true`` takes the Hessian for zero (FOMAML, section 5.2).

θ is the encoder's body and a linear head on embeddings that are scaled to the length √``scale``. Nothing here presumes
text, nor classes: with targets that are numbers the loss is the mean squared error (section 5.1 of the paper).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nas_meta.learners.base import accuracy, embed_distinct, one_by_one, task_loss
from nas_meta.learners.inner_loop.descent import InnerLoop, Weights, descend
from nas_meta.learners.inner_loop.kernels import differentiable_kernels
from nas_meta.learners.inner_loop.moving_parameters import AdaptationOptions, AdaptingLearner
from nas_meta.learners.inner_loop.planning import plan
from nas_meta.learners.training.regularisation import Regularisation
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool

HEAD = ("learned.head.weight", "learned.head.bias")


@dataclass(frozen=True)
class Task:
    """An episode as the inner loop sees it.

    Attributes:
        support, query: features ``[N*K, D]`` and ``[N*Q, D]`` under given weights.
        targets: of the support set.
        ways: N.
    """

    support: Callable[[Weights], Tensor]
    query: Callable[[Weights], Tensor]
    targets: Tensor
    ways: int


class MAMLOptions(AdaptationOptions):
    """Options of MAML and the learners made from it."""

    inner_steps: int = Field(3, ge=0, description="gradient steps on a support set while meta-training")
    adapt_steps: int | None = Field(None, ge=0, description="the same while scoring; by default inner_steps")
    inner_lr: float = Field(0.05, gt=0, description="learning rate α of these steps")
    head_lr: float | None = Field(2.0, gt=0, description="the same for the head; null: inner_lr")
    first_order: bool = Field(False, description="leave out second derivatives: less time and memory")
    scale: float | None = Field(
        10.0, gt=0, description="squared length of the embeddings that the head sees; null leaves them as they are"
    )
    meta_batch: int = Field(2, ge=1, description="episodes in a meta-training step; their gradients are averaged")
    memory_limit: float | None = Field(
        None, gt=0, description="GiB for a task's second derivatives; by default this trial's share of what is free"
    )


class MAML(AdaptingLearner):
    """MAML: an initialisation from which few gradient steps on a support set suffice."""

    Options = MAMLOptions
    any_ways = False

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        return nn.ModuleDict({"head": nn.Linear(encoder.width, ways)})

    def start(self, encoder: Encoder, features: Callable[[], Tensor], ways: int) -> Weights:
        """The head that the inner loop starts from; ``features()`` are those of the support set, ``[N*K, D]``."""
        return {HEAD[0]: encoder.learned["head"].weight, HEAD[1]: encoder.learned["head"].bias}

    def rates(self, encoder: Encoder, names: Sequence[str]) -> Mapping[str, Tensor | float]:
        """The inner learning rate of every weight that moves."""
        body, head = self.options.inner_lr, self.options.head_lr
        return {name: head if name in HEAD and head is not None else body for name in names}

    def gradients(
        self, encoder: Encoder, pool: Pool, first: Sequence[Episode], regularisation: Regularisation
    ) -> Callable[[Sequence[Episode]], float]:
        planned = plan(self, encoder, pool, first, regularisation.options.acts_on_embeddings)
        if not planned.batched:
            return one_by_one(lambda task: self.meta_loss(encoder, pool, task, planned.checkpointed), regularisation)

        def add(tasks: Sequence[Episode]) -> float:
            loss = self.meta_losses(encoder, pool, tasks).mean()
            loss.backward()
            return loss.item()

        return add

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode, checkpointed: bool = False) -> Tensor:
        loop = InnerLoop(self.options.inner_steps, not self.options.first_order, checkpointed)
        outputs = self._adapt(encoder, self._task(encoder, pool, episode), loop)
        return task_loss(outputs, on_device(encoder, episode.labels))

    def meta_losses(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> Tensor:
        """``[tasks]``: :meth:`meta_loss` of every task, the inner loops of all run at once (``torch.func.vmap``)."""
        loop = InnerLoop(self.options.inner_steps, not self.options.first_order, functional=True)

        def loss_of_one(support: dict, targets: Tensor, query: dict, wanted: Tensor) -> Tensor:
            features = [partial(self._features_of_inputs, encoder, inputs) for inputs in (support, query)]
            return task_loss(self._adapt(encoder, Task(*features, targets, len(tasks[0].support)), loop), wanted)

        return vmap(loss_of_one, randomness="different")(
            encoder.stacked(pool, [task.support.ravel() for task in tasks]),
            on_device(encoder, np.stack([task.support_labels for task in tasks])),
            encoder.stacked(pool, [task.query.ravel() for task in tasks]),
            on_device(encoder, np.stack([task.labels for task in tasks])),
        )

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        with torch.enable_grad():
            return self._adapt(encoder, self._task(encoder, pool, episode), self._scoring).detach()

    def accuracies(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
        if self.adapted(encoder):
            return super().accuracies(encoder, pool, tasks)
        # The body does not move, so every text is embedded once.
        z, position = embed_distinct(encoder, pool, tasks)
        z = self._scaled(z.clone())

        def score(task: Episode) -> float:
            parts = [z[position[part.ravel()]] for part in (task.support, task.query)]
            features = [lambda weights, part=part: part for part in parts]
            targets = on_device(encoder, task.support_labels)
            return accuracy(self._adapt(encoder, Task(*features, targets, len(task.support)), self._scoring), task)

        return np.array([score(task) for task in tasks])

    def probe(self, encoder: Encoder, pool: Pool, indices: np.ndarray, steps: int) -> Tensor:
        """A second-order inner loop on these examples, which are the query as well: for measuring what it takes."""
        features = partial(self._features_of, encoder, pool, indices)
        targets = on_device(encoder, np.zeros(len(indices), dtype=np.int64))
        return self._adapt(encoder, Task(features, features, targets, 1), InnerLoop(steps, True)).square().mean()

    @property
    def _scoring(self) -> InnerLoop:
        steps = self.options.adapt_steps
        return InnerLoop(self.options.inner_steps if steps is None else steps, second_order=False)

    def _task(self, encoder: Encoder, pool: Pool, episode: Episode) -> Task:
        parts = episode.support.ravel(), episode.query.ravel()
        features = [partial(self._features_of, encoder, pool, indices) for indices in parts]
        return Task(*features, on_device(encoder, episode.support_labels), len(episode.support))

    def _adapt(self, encoder: Encoder, task: Task, loop: InnerLoop) -> Tensor:
        """What the head says of the query examples, ``[N*Q, N]``, after the inner loop on the support set."""
        body = self.adapted(encoder)
        kernels = nullcontext
        if loop.second_order or loop.functional:
            kernels = partial(differentiable_kernels, loop.functional)
        with kernels():
            still = None if body else task.support({})
            # Views: a head that starts from features depends on the body too, which is no part of the inner gradient.
            weights = {name: p.view_as(p) for name, p in body.items()}
            weights |= self.start(encoder, lambda: task.support(body) if still is None else still, task.ways)
        moving = list(weights)
        if loop.checkpointed:
            learning = {n: p for n, p in encoder.named_parameters() if n.startswith("model.") and p.requires_grad}
            weights = learning | weights

        def loss_of(now: Weights) -> Tensor:
            # Within, because a checkpointed step calls it again during the backward pass.
            with kernels():
                z = task.support(now) if still is None else still
                return task_loss(F.linear(z, now[HEAD[0]], now[HEAD[1]]), task.targets)

        weights = descend(loss_of, weights, moving, self.rates(encoder, moving), loop)
        with kernels():
            return F.linear(task.query(weights), weights[HEAD[0]], weights[HEAD[1]])

    def _features_of(self, encoder: Encoder, pool: Pool, indices: np.ndarray, weights: Weights) -> Tensor:
        """What the head sees of these examples under given weights: ``[len(indices), D]``."""
        return self._scaled(encoder.embed(pool, indices, weights=model_weights(weights) or None))

    def _features_of_inputs(self, encoder: Encoder, inputs: dict, weights: Weights) -> Tensor:
        return self._scaled(functional_call(encoder, model_weights(weights), (), inputs))

    def _scaled(self, z: Tensor) -> Tensor:
        scale = self.options.scale
        return z if scale is None else scale**0.5 * F.normalize(z, dim=-1)


def model_weights(weights: Weights) -> Weights:
    """The weights of the model, without those of the head."""
    return {name: value for name, value in weights.items() if name.startswith("model.")}


def on_device(encoder: Encoder, targets: np.ndarray) -> Tensor:
    """Targets of examples where the encoder is."""
    return torch.from_numpy(targets).to(next(encoder.parameters()).device)
