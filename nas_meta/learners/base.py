"""The base class of all learners: options, the meta-training loop and the evaluation of episodes.

A learner defines two things: the loss of one episode (:meth:`Learner.meta_loss`) and a classifier for one support set
(:meth:`Learner.classify`). The loop over meta-batches, regularisation, schedules and checkpoints are here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from nas_meta.learners.training.options import TrainingOptions, rate_factor, set_dropout
from nas_meta.learners.training.regularisation import Regularisation, regularise
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode, EpisodeShape
from nas_meta.tasks.pool import Pool, Tasks


class LearnerOptions(PluginOptions):
    """Options that every learner has."""

    steps: int = Field(60, ge=0, description="number of meta-training steps; 0 evaluates the model without training")
    lr: float = Field(
        2e-5,
        gt=0,
        description="AdamW learning rate of the encoder during meta-training; by default 5e-4 for models from scratch, "
        "and 5e-5 for pretrained models if the learner compares embeddings",
    )
    learned_lr: float = Field(
        1e-3, gt=0, description="AdamW learning rate of the learner's own parameters, such as a head or a memory"
    )
    meta_batch: int = Field(1, ge=1, description="episodes per meta-training step; their gradients are averaged")
    train_embeddings: bool = Field(
        False,
        description="whether token and position embeddings are trained too, which are half of a small encoder's "
        "parameters; by default true for models from scratch",
    )
    training: TrainingOptions = Field(
        default_factory=TrainingOptions, description="regularisation and schedule, the same for every learner"
    )


Classify = Callable[[np.ndarray], Tensor]
"""Function from indices ``[M]`` of queries to logits ``[M, N]``."""


@dataclass(frozen=True)
class Step:
    """One completed meta-training step.

    Attributes:
        number: Number of the step, counted from 1.
        loss: Mean training loss of the meta-batch.
        values: Further values to report, by name, such as ``accuracy_at_1``.
        state: Returns the training state after this step: its number, the optimizer and so on.
            :meth:`Learner.meta_train` resumes from it and the encoder's weights. It refers to live tensors, so
            serialise it before the next step. None if the learner cannot resume.
    """

    number: int
    loss: float
    values: Mapping[str, float] = field(default_factory=dict)
    state: Callable[[], dict[str, Any]] | None = field(default=None, repr=False, compare=False)


class Learner(ABC):
    """A method that meta-trains a model over episodes and adapts it to one support set.

    Subclasses define :meth:`meta_loss` and :meth:`classify`. They override :meth:`meta_train` for another training
    loop, and :meth:`accuracies` if they can evaluate many episodes in one batch. A learner is stateless: everything
    that it learns lives in ``encoder.learned``, so that one instance serves all trials of a worker.

    Args:
        options: The learner's options; by default ``Options()``.
    """

    Options: type[LearnerOptions] = LearnerOptions
    any_ways: bool = True
    """Whether evaluation episodes may have a different number of classes than training episodes."""
    many_ways: bool = False
    """Whether models are by default meta-trained on more classes per episode than they are judged on."""

    def __init__(self, options: LearnerOptions | None = None):
        self.options = options if options is not None else self.Options()

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        """Return a new module with the parameters that the learner adds to an encoder; by default an empty one.

        Args:
            encoder: The encoder that the module belongs to; the caller assigns the module to ``encoder.learned``.
            ways: N, the number of classes of an episode.
        """
        return nn.Module()

    def equip(self, model: nn.Module) -> None:  # noqa: B027
        """Insert what the learner needs into a model, such as adapters; by default nothing.

        Args:
            model: The model that a search space built, changed in place.

        Raises:
            TrialError: The learner cannot use this kind of model.
        """

    def adapted(self, encoder: Encoder) -> dict[str, nn.Parameter]:
        """Return the encoder's parameters that change on a support set, by name; by default none."""
        return {}

    @abstractmethod
    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Compute the loss of one training episode.

        Args:
            encoder: The encoder to train, in training mode.
            pool: The examples that the episode's indices refer to.
            episode: The support and query examples.

        Returns:
            A scalar, differentiable with respect to the encoder's parameters.
        """

    @abstractmethod
    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Adapt to the support set and compute the logits of the query examples.

        The encoder is unchanged afterwards.

        Args:
            encoder: The trained encoder.
            pool: The examples that the episode's indices refer to.
            episode: The support and query examples.

        Returns:
            Logits ``[N*Q, N]``, one row per query example in the order of ``episode.query.ravel()``.
        """

    @contextmanager
    def adapting(self, encoder: Encoder, pool: Pool, episode: Episode) -> Iterator[Classify]:
        """Adapt to a support set once, and classify any number of queries inside the ``with`` block.

        By default every call adapts anew, by :meth:`classify`. The encoder is unchanged after the block.

        Args:
            encoder: The trained encoder.
            pool: The examples that all indices refer to.
            episode: The support examples; its query examples are ignored.

        Yields:
            A function from indices ``[M]`` to logits ``[M, N]``.
        """
        yield lambda queries: self.classify(encoder, pool, replace(episode, query=queries[None]))

    def meta_train(
        self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode], start: Mapping[str, Any] | None = None
    ) -> Iterator[Step]:
        """Train the encoder in place.

        If this process has joined a process group (:mod:`nas_meta.learners.training.distributed`), every step averages
        the gradients over all its workers.

        Args:
            encoder: The encoder to train.
            pool: The examples that the episodes' indices refer to.
            draw: Returns the i-th training episode, counted from 0.
            start: What :attr:`Step.state` returned after the last completed step. The encoder must have the weights of
                that step; for an exact continuation, restore torch's random state too. None starts with the first step.

        Yields:
            Every step, after the weights have been updated.

        Raises:
            TrialError: The loss is not finite, or the model has no trainable parameters.
        """
        options, training = self.options, self.options.training
        set_dropout(encoder.model, training)
        body = freeze_all_but(encoder, encoder.body_parameters(options.train_embeddings))
        learned = list(encoder.learned.parameters())
        if options.steps == 0:
            return
        if not body and not learned:
            raise TrialError("the model has no trainable parameters; expected at least one, or learner.steps: 0")
        groups = [{"params": body, "lr": options.lr}, {"params": learned, "lr": options.learned_lr}]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], weight_decay=training.weight_decay, fused=True
        )
        schedule = LambdaLR(optimizer, lambda step: rate_factor(training, step, options.steps))
        first = [draw(i) for i in range(options.meta_batch)]
        parts: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule}
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
                yield Step(step + 1, loss, state=partial(_state, step + 1, parts))

    def gradients(
        self, encoder: Encoder, pool: Pool, first: Sequence[Episode], regularisation: Regularisation
    ) -> Callable[[Sequence[Episode]], float]:
        """Return the function that computes the gradients of a meta-batch.

        By default it processes one episode after the other. Override it to process them jointly.

        Args:
            encoder: The encoder to train.
            pool: The examples that the episodes' indices refer to.
            first: The first meta-batch, from whose sizes a learner may plan its use of memory.
            regularisation: Computes the gradients; call its ``backward()`` instead of ``loss.backward()``.

        Returns:
            A function that takes a meta-batch, adds the gradients of its mean loss to the parameters' ``grad``, and
            returns that loss.
        """
        return one_by_one(lambda task: self._scalar(self.meta_loss(encoder, pool, task)), regularisation)

    def _scalar(self, loss: Tensor) -> Tensor:
        """Return the loss if it is a differentiable scalar."""
        if not isinstance(loss, Tensor):
            returned = type_name(loss)
        elif loss.ndim or not loss.is_floating_point():
            returned = f"{loss.dtype} {list(loss.shape)}"
        elif not loss.requires_grad:
            returned = "a tensor without a gradient"
        else:
            return loss
        raise TrialError(
            f"{type(self).__name__}.meta_loss() returned {returned}; expected a differentiable scalar tensor"
        )

    def accuracies(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
        """Evaluate episodes.

        Args:
            encoder: The trained encoder; it is unchanged afterwards, except that it is in evaluation mode.
            pool: The examples that the episodes' indices refer to.
            tasks: The episodes.

        Returns:
            ``[len(tasks)]``, the share of each episode's query examples that are classified correctly, from 0 to 1.
        """
        encoder.eval()
        return np.array([accuracy(self._logits_of(encoder, pool, task), task) for task in tasks])

    def finish(self, encoder: Encoder, tasks: Tasks, shape: EpisodeShape, seed: int, episodes: int) -> None:  # noqa: B027
        """Fit what the learner adds to the trained encoder, such as a head; by default nothing.

        Called once after the training, before the validation.

        Args:
            encoder: The trained encoder; only ``encoder.learned`` may change.
            tasks: The examples of meta-train and meta-validation.
            shape: Shape of evaluation episodes.
            seed: Seed of whatever is drawn.
            episodes: Number of meta-validation episodes that a choice may be judged on.
        """

    def optional(self, name: str) -> bool:
        """Return whether evaluation can do without an entry of ``encoder.learned``, or fit it.

        By default these are the entries of a head, which is fitted after the training. An exported model can then be
        evaluated with another learner, or with other options, than those of its training.

        Args:
            name: Name in the state of ``encoder.learned``, such as ``temperature``.
        """
        return name == "form" or name.startswith("head.")

    def _logits_of(self, encoder: Encoder, pool: Pool, task: Episode) -> Tensor:
        """Return the logits of an episode if they have the promised shape."""
        logits, expected = self.classify(encoder, pool, task), [task.query.size, len(task.support)]
        if not isinstance(logits, Tensor) or list(logits.shape) != expected:
            returned = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else type_name(logits)
            raise TrialError(
                f"{type(self).__name__}.classify() returned {returned}; expected logits of shape {expected}"
            )
        return logits


def _state(step: int, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training state after a step."""
    return {"step": step, **{name: part.state_dict() for name, part in parts.items()}}


def finite(loss: float, step: int) -> float:
    """Return the loss of a step if it is finite.

    Args:
        loss: The loss.
        step: Number of the step, counted from 1, for the error message.

    Raises:
        TrialError: The loss is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise TrialError(f"the loss is {loss} at step {step}: training diverged; lower learner.lr")
    return loss


def one_by_one(
    loss_of: Callable[[Episode], Tensor], regularisation: Regularisation
) -> Callable[[Sequence[Episode]], float]:
    """Return a function that computes the gradients of a meta-batch one episode after the other.

    The graph of an episode is freed before the next one, so that peak memory does not grow with the meta-batch.

    Args:
        loss_of: Computes the scalar loss of an episode.
        regularisation: Computes the gradients.

    Returns:
        A function as :meth:`Learner.gradients` returns it.
    """

    def add(tasks: Sequence[Episode]) -> float:
        return sum(regularisation.backward(partial(loss_of, task), 1 / len(tasks)) for task in tasks)

    return add


def task_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy for class targets, or the mean squared error for real-valued targets.

    Args:
        outputs: Logits ``[M, N]``, or predictions of the same shape as the targets.
        targets: Class indices ``[M]`` of an integer type, or floating-point values.
    """
    return F.mse_loss(outputs, targets) if targets.is_floating_point() else F.cross_entropy(outputs, targets)


def freeze_all_but(encoder: Encoder, trained: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Require gradients of the given model parameters only.

    Args:
        encoder: The encoder whose model is changed in place.
        trained: The parameters that are trained.

    Returns:
        The parameters that are trained.
    """
    trainable = list(trained)
    identities = {id(p) for p in trainable}
    for parameter in encoder.model.parameters():
        parameter.requires_grad_(id(parameter) in identities)
    return trainable


def accuracy(logits: Tensor, episode: Episode) -> float:
    """Return the share of query examples that are classified correctly, from 0 to 1.

    Args:
        logits: ``[N*Q, N]``; the largest logit of a row is the prediction.
        episode: The episode, which has the classes of its query examples.
    """
    return float((logits.argmax(1).cpu().numpy() == episode.labels).mean())


def embed_distinct(encoder: Encoder, pool: Pool, tasks: Sequence[Episode], rows: int = 64) -> tuple[Tensor, np.ndarray]:
    """Embed each distinct example of the episodes once, without gradients.

    Args:
        encoder: The encoder; it is in evaluation mode afterwards.
        pool: The examples that the episodes' indices refer to.
        tasks: The episodes.
        rows: Approximate number of texts per call of the model, if texts are not packed.

    Returns:
        Embeddings ``z`` ``[distinct examples, D]``, and ``position`` ``[len(pool)]`` such that ``z[position[i]]`` is
        the embedding of example i.
    """
    used = np.unique(np.concatenate([task.indices for task in tasks]))
    position = np.full(len(pool), -1)
    position[used] = np.arange(len(used))
    return encoder.embed_once(pool, used, rows), position
