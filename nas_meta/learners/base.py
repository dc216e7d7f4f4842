"""What every learner shares: options, the meta-training loop and the scoring of episodes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from nas_meta.core.guard import type_name
from nas_meta.core.options import PluginOptions
from nas_meta.errors import TrialError
from nas_meta.learners.training.distributed import average_over_ranks
from nas_meta.learners.training.options import Average, TrainingOptions, rate_factor, set_dropout
from nas_meta.learners.training.regularisation import Regularisation, regularise
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


class LearnerOptions(PluginOptions):
    """Options that every learner has."""

    steps: int = Field(60, ge=0, description="meta-training steps; 0 evaluates without training")
    lr: float = Field(2e-5, gt=0, description="learning rate of AdamW during meta-training")
    learned_lr: float = Field(
        1e-3, gt=0, description="learning rate of what the learner adds to the encoder: a head, a scale, a memory"
    )
    meta_batch: int = Field(1, ge=1, description="episodes in a meta-training step; their gradients are averaged")
    train_embeddings: bool = Field(
        False, description="whether the token embeddings learn too: half of a small encoder's parameters"
    )
    training: TrainingOptions = Field(
        default_factory=TrainingOptions, description="regularisation and schedule, the same for every learner"
    )


@dataclass(frozen=True)
class Step:
    """One meta-training step: its number from 1, its loss, and what else a learner has to say.

    Attributes:
        state: gives what :meth:`Learner.meta_train` needs beside the encoder's weights to go on after this step.
    """

    number: int
    loss: float
    values: Mapping[str, float] = field(default_factory=dict)
    state: Callable[[], dict[str, Any]] | None = field(default=None, repr=False, compare=False)


class Learner(ABC):
    """How a model is meta-trained over episodes and how it adapts to one support set.

    Subclasses define :meth:`meta_loss` and :meth:`classify`; those that need another loop override
    :meth:`meta_train`, those that can score many episodes at once override :meth:`accuracies`. A learner keeps no
    state of its own: what it learns lives in ``encoder.learned``, so that one serves every trial of a worker.
    """

    Options: type[LearnerOptions] = LearnerOptions
    any_ways: bool = True
    """Whether episodes may have another number of classes than those of meta-training had."""

    def __init__(self, options: LearnerOptions | None = None):
        self.options = options if options is not None else self.Options()

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        """A new module with what is learned beside the encoder; by default nothing."""
        return nn.Module()

    def equip(self, model: nn.Module) -> None:  # noqa: B027
        """Puts into a model what the learner needs there, such as adapters; by default nothing."""

    def adapted(self, encoder: Encoder) -> dict[str, nn.Parameter]:
        """The encoder's parameters that move on a support set, by name; by default none."""
        return {}

    @abstractmethod
    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """The scalar loss of one episode, differentiable with respect to the encoder."""

    @abstractmethod
    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Adapts to the support set and returns logits ``[N*Q, N]`` of the query examples.

        Leaves the encoder as it was.
        """

    def meta_train(
        self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode], start: Mapping[str, Any] | None = None
    ) -> Iterator[Step]:
        """Trains the encoder in place, yielding after every step; ``draw(i)`` is the i-th training episode.

        Together with other workers, where this one has joined them (:mod:`nas_meta.learners.training.distributed`).

        Args:
            start: the state of the step after which another process goes on; the encoder's weights are those of then.

        Raises:
            TrialError: the loss is not finite, or nothing can be trained.
        """
        options, training = self.options, self.options.training
        set_dropout(encoder.model, training)
        body = freeze_all_but(encoder, encoder.body_parameters(options.train_embeddings))
        learned = list(encoder.learned.parameters())
        if options.steps == 0:
            return
        if not body and not learned:
            raise TrialError("the model has no parameters to train; expected some, or learner.steps: 0")
        groups = [{"params": body, "lr": options.lr}, {"params": learned, "lr": options.learned_lr}]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], weight_decay=training.weight_decay, fused=True
        )
        schedule = LambdaLR(optimizer, lambda step: rate_factor(training, step, options.steps))
        average = Average([*body, *learned], training.average_last, options.steps)
        first = [draw(i) for i in range(options.meta_batch)]
        parts: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule, "average": average}
        done = 0
        if start is not None:
            done = start["step"]
            for name, part in parts.items():
                part.load_state_dict(start[name])
        with regularise(encoder, training) as regularisation:
            add_gradients = self.gradients(encoder, pool, first, regularisation)
            for step in range(done, options.steps):
                encoder.train()
                optimizer.zero_grad(set_to_none=True)
                tasks = [draw(i) for i in range(step * options.meta_batch, (step + 1) * options.meta_batch)]
                loss = finite(average_over_ranks(add_gradients(tasks), [*body, *learned]), step + 1)
                torch.nn.utils.clip_grad_norm_([*body, *learned], training.clip)
                optimizer.step()
                schedule.step()
                average.add(step)
                yield Step(step + 1, loss, state=partial(_state, step + 1, parts))

    def gradients(
        self, encoder: Encoder, pool: Pool, first: Sequence[Episode], regularisation: Regularisation
    ) -> Callable[[Sequence[Episode]], float]:
        """How the gradients of a meta-batch are added up: a function that does it and returns the mean loss.

        Args:
            first: the first meta-batch, by which a learner may plan.
            regularisation: takes the place of ``loss.backward()``.
        """
        return one_by_one(lambda task: self._scalar(self.meta_loss(encoder, pool, task)), regularisation)

    def _scalar(self, loss: Tensor) -> Tensor:
        """A loss, if it is one that training can follow."""
        if not isinstance(loss, Tensor):
            found = type_name(loss)
        elif loss.ndim or not loss.is_floating_point():
            found = f"{loss.dtype} {list(loss.shape)}"
        elif not loss.requires_grad:
            found = "a tensor without a gradient"
        else:
            return loss
        raise TrialError(f"{type(self).__name__}.meta_loss() returned {found}; expected a differentiable scalar tensor")

    def accuracies(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
        """``[len(tasks)]``: the share of query examples of each episode that are classified correctly."""
        encoder.eval()
        return np.array([accuracy(self._logits_of(encoder, pool, task), task) for task in tasks])

    def _logits_of(self, encoder: Encoder, pool: Pool, task: Episode) -> Tensor:
        logits, expected = self.classify(encoder, pool, task), [task.query.size, len(task.query)]
        if not isinstance(logits, Tensor) or list(logits.shape) != expected:
            found = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type_name(logits)
            raise TrialError(f"{type(self).__name__}.classify() returned {found}; expected logits of shape {expected}")
        return logits


def _state(step: int, parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": step, **{name: part.state_dict() for name, part in parts.items()}}


def finite(loss: float, step: int) -> float:
    """The loss of a step, if it is a number.

    Raises:
        TrialError: it is not.
    """
    if not math.isfinite(loss):
        raise TrialError(f"the loss is {loss} at step {step}: training diverged; lower learner.lr")
    return loss


def one_by_one(
    loss_of: Callable[[Episode], Tensor], regularisation: Regularisation
) -> Callable[[Sequence[Episode]], float]:
    """Adds up the gradients of a meta-batch one episode after the other: it takes the memory of one."""

    def add(tasks: Sequence[Episode]) -> float:
        return sum(regularisation.backward(partial(loss_of, task), 1 / len(tasks)) for task in tasks)

    return add


def task_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy where the targets are classes (integers ``[M]``), mean squared error where they are numbers."""
    return F.mse_loss(outputs, targets) if targets.is_floating_point() else F.cross_entropy(outputs, targets)


def freeze_all_but(encoder: Encoder, trained: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Of the model's parameters, only these get gradients from now on; returns them."""
    kept = list(trained)
    names = {id(p) for p in kept}
    for parameter in encoder.model.parameters():
        parameter.requires_grad_(id(parameter) in names)
    return kept


def accuracy(logits: Tensor, episode: Episode) -> float:
    """Share of query examples whose largest logit ``[N*Q, N]`` is that of their class."""
    return float((logits.argmax(1).cpu().numpy() == episode.labels).mean())


def embed_distinct(encoder: Encoder, pool: Pool, tasks: Sequence[Episode], rows: int = 64) -> tuple[Tensor, np.ndarray]:
    """Embeds each example that the episodes use once, without gradients.

    Returns embeddings ``[distinct, D]`` and ``position`` ``[examples]``, so that ``z[position[i]]`` is example i's.
    """
    used = np.unique(np.concatenate([task.indices for task in tasks]))
    position = np.full(len(pool), -1)
    position[used] = np.arange(len(used))
    encoder.eval()
    with torch.inference_mode():
        return encoder.embed(pool, used, rows), position
