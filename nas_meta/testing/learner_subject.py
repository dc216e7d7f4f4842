"""A learner under test, with a tiny model and two episodes to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nas_meta.core.guard import type_name
from nas_meta.learners.base import Learner, Step
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode, episode
from nas_meta.tasks.pool import Pool
from nas_meta.testing.checks import expect
from nas_meta.testing.episodes import SHAPE, encoder_for, tasks_for

LEARNING_RATE = 3e-3  # of the tiny model, which begins with random weights


@dataclass(frozen=True)
class Subject:
    """The learner under test.

    Attributes:
        make: Returns a new learner.
        seed: Seed of models and episodes.
        model: Returns an encoder for a learner and a seed; by default one of a tiny model.
    """

    make: Callable[[], Learner]
    seed: int = 0
    model: Callable[[Learner, int], Encoder] = encoder_for

    def learner(self, steps: int = 3) -> Learner:
        """Return the learner with options for the tiny model.

        Args:
            steps: Number of meta-training steps.
        """
        learner = self.make()
        training = learner.options.training.model_copy(update={"weight_decay": 0.0})
        changes = {"steps": steps, "lr": LEARNING_RATE, "meta_batch": 1, "training": training}
        return type(learner)(learner.options.model_copy(update=changes))

    def pool(self, learner: Learner) -> Pool:
        """Return the examples of meta-train.

        Args:
            learner: A learner, which may need prompts.
        """
        return tasks_for(getattr(learner.options, "template", None))["meta-train"]

    def episodes(self, learner: Learner, count: int) -> list[Episode]:
        """Return the first episodes of the seed.

        Args:
            learner: The learner.
            count: Number of episodes.
        """
        return [episode(self.pool(learner), SHAPE, self.seed, i) for i in range(count)]

    def train(self, learner: Learner, encoder: Encoder, start: Mapping[str, Any] | None = None) -> Iterator[Step]:
        """Meta-train on two episodes in turn.

        Args:
            learner: The learner.
            encoder: The encoder, changed in place.
            start: State of a step to resume from.
        """
        tasks = self.episodes(learner, 2)
        return learner.meta_train(encoder, self.pool(learner), lambda i: tasks[i % 2], start)

    def trained(self, steps: int = 3) -> tuple[Learner, Encoder, Pool]:
        """Return a learner and an encoder after a few steps, in evaluation mode, with the pool.

        Args:
            steps: Number of meta-training steps.
        """
        learner = self.learner(steps)
        encoder = self.model(learner, self.seed)
        torch.manual_seed(self.seed)
        for _ in self.train(learner, encoder):
            continue
        return learner, encoder.eval(), self.pool(learner)


def classify(learner: Learner, encoder: Encoder, pool: Pool, task: Episode) -> Tensor:
    """Return the logits of an episode, on the CPU and without a gradient.

    Args:
        learner: The learner.
        encoder: The encoder.
        pool: The examples.
        task: The episode.

    Raises:
        CheckError: The learner returned something other than a matrix.
    """
    torch.manual_seed(0)
    logits = learner.classify(encoder, pool, task)
    expect(
        isinstance(logits, Tensor) and logits.ndim == 2,
        f"classify() returned {described(logits)}",
        "return a tensor of logits [queries, classes]",
    )
    return logits.detach().cpu()


def train_and_evaluate(subject: Subject, learner: Learner, encoder: Encoder) -> None:
    """Take the steps of a trial: training, evaluation, classification.

    Args:
        subject: The learner under test.
        learner: The learner.
        encoder: The encoder.
    """
    torch.manual_seed(subject.seed)
    for _ in subject.train(learner, encoder):
        continue
    tasks, pool = subject.episodes(learner, 2), subject.pool(learner)
    learner.accuracies(encoder, pool, tasks)
    classify(learner, encoder.eval(), pool, tasks[0])


def described(value: Any) -> str:
    """Describe logits for an error sentence.

    Args:
        value: What a learner returned.
    """
    if not isinstance(value, Tensor):
        return type_name(value)
    finite = "" if torch.isfinite(value).all() else " that are not finite"
    return f"logits of shape {list(value.shape)}{finite}"
