"""What one-shot strategies share: a supernet trained by one job on two levels, and what is derived from it.

Weights learn on episodes of some meta-train classes, the architecture on episodes of the held-out ones. The derived
architectures are then trained alone, as ordinary trials.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from nas_meta import Architecture, ChoiceSupernet, Learner, Outcome, PluginOptions, SearchContext, SearchSpace, Strategy
from nas_meta.errors import ConfigError
from nas_meta.evaluation.progress import JobResult, Progress
from nas_meta.evaluation.trial import Evaluation
from nas_meta.learners.metric import MetricLearner
from nas_meta.models.encoder import Encoder
from nas_meta.models.state import restore_training, serialize_training
from nas_meta.space.wrappers import space_name
from nas_meta.tasks.episodes import Episode, EpisodeShape, episode, episodes
from nas_meta.tasks.pool import Pool
from strategies.one_shot.bilevel import EpisodeLoss, two_levels
from strategies.one_shot.nni_supermodules import SuperModules, choice_supernet, is_alpha, weights_of
from strategies.shared.mutation import neighbour


class OneShotOptions(PluginOptions):
    """Options that every one-shot strategy has."""

    steps: int = Field(300, ge=1, description="steps in which the supernet's weights learn")
    lr: float | None = Field(None, gt=0, description="learning rate of the supernet's weights; by default learner.lr")
    held_out: float = Field(0.5, gt=0, lt=1, description="share of the meta-train classes for the architecture alone")
    checkpoint_every: int = Field(
        100, ge=0, description="steps between two checkpoints of the supernet; 0 only at the end"
    )


@dataclass
class Training:
    """What a method works with while its supernet trains.

    Attributes:
        lower: the classes on which the weights learn.
        upper: those on which the architecture does.
        modules: the supernet's choices.
        loss: the learner's, a function of weights and architecture parameters.
    """

    options: Any
    space: SearchSpace
    supernet: ChoiceSupernet
    modules: SuperModules
    encoder: Encoder
    learner: Learner
    loss: EpisodeLoss
    lower: Pool
    upper: Pool
    shape: EpisodeShape
    judged: EpisodeShape
    seed: int

    def lower_episode(self, index: int) -> Episode:
        """The index-th episode of the weights."""
        return episode(self.lower, self.shape, self.seed, index)

    def upper_episode(self, index: int) -> Episode:
        """The index-th episode of the architecture."""
        return episode(self.upper, self.shape, self.seed, index)

    def inherited(self, architecture: Architecture, count: int) -> float:
        """Accuracy with the supernet's weights on the first ``count`` episodes of the architecture's classes.

        Only where paths are sampled: :meth:`SuperModules.follow` must be enough to compute one architecture.
        """
        self.modules.follow(architecture)
        # Not those that a controller was rewarded for: these are never seen before the end.
        tasks = list(episodes(self.upper, self.judged, self.seed + 1, count))
        return float(self.learner.accuracies(self.encoder, self.upper, tasks).mean())


class Method(ABC):
    """One algorithm at work; lives in the job, on the worker."""

    def __init__(self, training: Training):
        self.training, self.options = training, training.options

    @staticmethod
    @abstractmethod
    def mutate(supernet: ChoiceSupernet) -> SuperModules:
        """Makes the supernet's choices those of the algorithm, in place."""

    @staticmethod
    def extra_steps(options: Any) -> int:
        """Steps after the training that :meth:`derive` takes."""
        return 0

    def before_weights(self, step: int) -> None:  # noqa: B027
        """Before the weights learn in a step, from 0."""

    @abstractmethod
    def architecture_step(self, step: int) -> Mapping[str, float]:
        """The architecture's part of a step, from 1, after the weights'; returns what TensorBoard shows of it."""

    def probabilities(self) -> dict[str, list[float]]:
        """Of every choice those of its values; empty where the algorithm has none."""
        return {}

    @property
    def settled(self) -> bool:
        """Whether :meth:`state` is all of the state after this step."""
        return True

    def state(self) -> dict[str, Any]:
        """What the method needs to go on, beside the supernet and torch's random numbers; tensors and plain data."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Goes back to a :meth:`state`."""

    @abstractmethod
    def derive(self, count: int) -> Generator[Mapping[str, float], None, list[Architecture]]:
        """At most ``count`` distinct architectures, best first; yields after each of the extra steps."""


@dataclass(frozen=True)
class SupernetJob:
    """Trains a supernet and derives architectures, on one worker (:class:`nas_meta.strategy.Job`)."""

    strategy: str
    method: type[Method]
    options: OneShotOptions
    trials: int
    seed: int

    @property
    def steps(self) -> int:
        return self.options.steps + self.method.extra_steps(self.options)

    def __call__(
        self, evaluation: Evaluation, checkpoint: np.ndarray | None = None
    ) -> Generator[Progress, None, JobResult]:
        torch.manual_seed(self.seed)
        training = self._training(evaluation)
        method = self.method(training)
        encoder, lower = training.encoder, training.lower
        start, last = None, 0
        if checkpoint is not None:
            parts = restore_training(checkpoint, encoder)
            start, last = parts["learner"], parts["learner"]["step"]
            method.restore(parts["method"])
        method.before_weights(last)
        every = self.options.checkpoint_every or self.options.steps
        for step in training.learner.meta_train(encoder, lower, training.lower_episode, start):
            values = {"meta-train/loss": step.loss, **method.architecture_step(step.number)}
            kept = None
            due = step.number - last >= every and method.settled
            if due or step.number == self.options.steps:
                last = step.number
                kept = serialize_training(encoder, learner=step.state(), method=method.state())
            method.before_weights(step.number)
            values |= shown(training.space, method.probabilities())
            yield Progress(step.number, values, kept)
        derivation = method.derive(self.trials)
        number, architectures = self.options.steps, []
        while True:
            try:
                values = next(derivation)
            except StopIteration as end:
                architectures = end.value
                break
            number += 1
            yield Progress(number, values)
        findings = {
            "architectures": [dict(architecture.values) for architecture in architectures],
            "probabilities": method.probabilities(),
            "classes": {"weights": list(training.lower.classes), "architecture": list(training.upper.classes)},
        }
        return JobResult(findings, packed_weights(training.supernet))

    def _training(self, evaluation: Evaluation) -> Training:
        options, space = self.options, evaluation.space
        learner = evaluation.learner
        if not isinstance(learner, MetricLearner):
            raise ConfigError(
                f"strategy '{self.strategy}' trains its supernet by the loss of a metric learner, which "
                f"{type(learner).__name__} is not; expected protonet, matching or ridge as learner.name"
            )
        shape = evaluation.train.of(evaluation.shape)
        most = max(shape.ways, evaluation.shape.ways)
        lower, upper = two_levels(evaluation.tasks["meta-train"], options.held_out, most, self.seed)
        supernet = choice_supernet(space.supernet(), self.strategy, space_name(space))
        modules = self.method.mutate(supernet)
        encoder = evaluation.encoder(supernet)
        # The learner's optimiser is for the weights.
        encoder.frozen |= {name for name, _ in encoder.model.named_parameters() if is_alpha(name)}
        changed = {"steps": options.steps, **({} if options.lr is None else {"lr": options.lr})}
        learner = type(learner)(learner.options.model_copy(update=changed))
        loss = EpisodeLoss(learner, encoder, is_alpha)
        return Training(
            options, space, supernet, modules, encoder, learner, loss, lower, upper, shape, evaluation.shape, self.seed
        )


class OneShot(Strategy):
    """Proposes what was derived from a supernet, best first; subclasses name the method.

    Raises:
        ConfigError: the space has no supernet of choices.
    """

    Options = OneShotOptions
    name: ClassVar[str]
    method: ClassVar[type[Method]]

    def __init__(self, context: SearchContext, options: OneShotOptions | None = None):
        super().__init__(context, options)
        choice_supernet(context.space.supernet(), self.name, space_name(context.space))
        self._proposals: deque[Architecture] = deque()

    def job(self) -> SupernetJob:
        return SupernetJob(self.name, self.method, self.options, self.context.trials, self.context.seed)

    def receive(self, findings: Mapping[str, Any], weights: np.ndarray | None) -> None:
        self._proposals.extend(Architecture(values) for values in findings["architectures"])

    def ask(self) -> Architecture | None:
        return self._proposals.popleft() if self._proposals else None

    def tell(self, outcome: Outcome) -> None:
        return None


def shown(space: SearchSpace, probabilities: Mapping[str, list[float]]) -> dict[str, float]:
    """Probabilities under the names that TensorBoard shows, such as ``probability/layer0.op/attention-4``."""
    return {
        f"probability/{name}/{value}": p
        for name, row in probabilities.items()
        for value, p in zip(space.table[name].values, row, strict=True)
    }


def ranked(training: Training, scores: Mapping[Architecture, float], count: int) -> list[Architecture]:
    """The ``count`` with the highest scores; where there are fewer, neighbours of the best follow."""
    found = {a.id: a for a in sorted(scores, key=scores.get, reverse=True)[:count]}
    for near in _neighbours(training, found):
        if len(found) >= count:
            break
        found[near.id] = near
    return list(found.values())


def _neighbours(training: Training, found: Mapping[str, Architecture]) -> Iterator[Architecture]:
    rng = np.random.default_rng(training.seed)
    while near := neighbour(training.space, next(iter(found.values())), found, rng):
        yield near


def packed_weights(supernet: ChoiceSupernet) -> np.ndarray:
    """The weights of a mutated supernet as safetensors, which the space's own supernet loads."""
    from safetensors.torch import save

    state = {name: t.detach().cpu().contiguous().clone() for name, t in weights_of(supernet).items()}
    return np.frombuffer(save(state), dtype=np.uint8)
