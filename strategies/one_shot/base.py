"""The parts that one-shot strategies share: a job that trains a supernet and derives architectures from it.

Training is bilevel: the weights learn on episodes of some meta-train classes, the architecture on episodes of the
held-out others. The derived architectures are then trained as ordinary trials, without the supernet's weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
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
from strategies.one_shot.bilevel import EpisodeLoss, split_classes
from strategies.one_shot.nni_supermodules import SuperModules, choice_supernet, is_alpha, weights_of
from strategies.shared.unseen import neighbour


class OneShotOptions(PluginOptions):
    """Options that every one-shot strategy has."""

    steps: int = Field(300, ge=1, description="training steps of the supernet's weights")
    lr: float | None = Field(None, gt=0, description="learning rate of the supernet's weights; by default learner.lr")
    held_out: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of the meta-train classes that only the architecture learns from; episodes have no more "
        "classes than either part",
    )
    checkpoint_every: int = Field(
        100, ge=0, description="steps between two checkpoints of the supernet; 0 writes one only at the end"
    )


@dataclass
class Training:
    """The state of a supernet's training that a :class:`Method` works with.

    Attributes:
        options: The options of the strategy.
        space: The search space.
        supernet: The supernet, whose choices are NNI's super-modules.
        modules: Controls the supernet's choices.
        encoder: The encoder with the supernet as its model.
        learner: Meta-trains the weights.
        loss: The learner's loss as a function of weights and architecture parameters.
        lower: The classes that the weights learn on.
        upper: The classes that the architecture learns on.
        shape: The shape of the training episodes on both levels.
        evaluation_shape: The shape of the episodes that score architectures.
        seed: The seed of the search.
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
    evaluation_shape: EpisodeShape
    seed: int

    def lower_episode(self, index: int) -> Episode:
        """Return a training episode of the weights.

        Args:
            index: The number of the episode, from 0. The same number always gives the same episode.
        """
        return episode(self.lower, self.shape, self.seed, index)

    def upper_episode(self, index: int) -> Episode:
        """Return a training episode of the architecture.

        Args:
            index: The number of the episode, from 0. The same number always gives the same episode.
        """
        return episode(self.upper, self.shape, self.seed, index)

    def inherited_accuracy(self, architecture: Architecture, count: int) -> float:
        """Return the accuracy of an architecture with the supernet's weights, on classes held out from the weights.

        Only for supernets of :func:`paths`, in which :meth:`SuperModules.follow` selects one architecture.

        Args:
            architecture: The architecture to score.
            count: The number of episodes. All architectures are scored on the same ones.

        Returns:
            The mean accuracy, from 0 to 1.
        """
        self.modules.follow(architecture)
        # Another seed than in training, so that a controller is not scored on the episodes that rewarded it.
        tasks = list(episodes(self.upper, self.evaluation_shape, self.seed + 1, count))
        return float(self.learner.accuracies(self.encoder, self.upper, tasks).mean())


class Method(ABC):
    """One run of a one-shot algorithm; created by the job, on the worker.

    Each step calls :meth:`before_weights`, trains the weights, and calls :meth:`architecture_step`. After the last
    step, :meth:`derive` returns the architectures.

    Args:
        training: The training that the method takes part in.
    """

    def __init__(self, training: Training):
        self.training, self.options = training, training.options

    @staticmethod
    @abstractmethod
    def mutate(supernet: ChoiceSupernet) -> SuperModules:
        """Replace the supernet's choices by the super-modules of the algorithm, in place.

        Args:
            supernet: The supernet of the space.

        Returns:
            The control over the choices.
        """

    @staticmethod
    def extra_steps(options: Any) -> int:
        """Return the number of steps of :meth:`derive`, which follow those of the training.

        Args:
            options: The options of the strategy.
        """
        return 0

    def before_weights(self, step: int) -> None:  # noqa: B027
        """Prepare the supernet for the next step of the weights, for example by selecting a path.

        Args:
            step: The number of finished steps.
        """

    @abstractmethod
    def architecture_step(self, step: int) -> Mapping[str, float]:
        """Train the architecture after a step of the weights.

        Args:
            step: The step, from 1.

        Returns:
            Scalars for TensorBoard.
        """

    def probabilities(self) -> dict[str, list[float]]:
        """Return the probabilities of the values of each choice.

        Returns:
            Lists in the order of the choice's values, by its name; empty if the algorithm has no probabilities.
        """
        return {}

    @property
    def can_checkpoint(self) -> bool:
        """Whether :meth:`state` is complete after this step; otherwise the checkpoint waits for a later one."""
        return True

    def state(self) -> dict[str, Any]:
        """Return the state that the method resumes from, in addition to the supernet and torch's random generator.

        Returns:
            Tensors and plain data.
        """
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Restore a state.

        Args:
            state: The result of :meth:`state`.
        """

    @abstractmethod
    def derive(self, count: int) -> Generator[Mapping[str, float], None, list[Architecture]]:
        """Derive architectures from the trained supernet.

        Args:
            count: The largest number of architectures.

        Yields:
            Scalars for TensorBoard, after each of the :meth:`extra_steps`.

        Returns:
            Distinct architectures, best first.
        """


@dataclass(frozen=True)
class SupernetJob:
    """Trains a supernet and derives architectures, on one worker (:class:`nas_meta.strategy.Job`).

    Attributes:
        strategy: The name of the strategy, for messages.
        method: The algorithm.
        options: The options of the strategy.
        trials: The number of architectures to derive.
        seed: The seed of the search.
    """

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
            saved = None
            due = step.number - last >= every and method.can_checkpoint
            if due or step.number == self.options.steps:
                last = step.number
                saved = serialize_training(encoder, learner=step.state(), method=method.state())
            method.before_weights(step.number)
            values |= probability_scalars(training.space, method.probabilities())
            yield Progress(step.number, values, saved)
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
        return JobResult(findings, serialize_weights(training.supernet))

    def _training(self, evaluation: Evaluation) -> Training:
        """Split the classes, change the supernet for the method, and assemble everything that training needs."""
        options, space = self.options, evaluation.space
        learner = evaluation.learner
        if not isinstance(learner, MetricLearner):
            raise ConfigError(
                f"strategy '{self.strategy}' trains its supernet with the loss of a metric learner, but "
                f"{type(learner).__name__} is not one; expected learner.name to be protonet, matching or ridge"
            )
        ways = evaluation.shape.ways
        lower, upper = split_classes(evaluation.tasks["meta-train"], options.held_out, ways, self.seed)
        shape = evaluation.train.of(evaluation.shape)
        shape = replace(shape, ways=min(shape.ways, lower.most_ways, upper.most_ways))
        supernet = choice_supernet(space.supernet(), self.strategy, space_name(space))
        modules = self.method.mutate(supernet)
        # Some path, so that the learner can measure the width of embeddings; every step selects its own.
        modules.follow(space.sample(np.random.default_rng(self.seed)))
        encoder = evaluation.encoder(supernet)
        # The learner's optimiser trains only the weights.
        encoder.frozen |= {name for name, _ in encoder.model.named_parameters() if is_alpha(name)}
        updates = {"steps": options.steps, **({} if options.lr is None else {"lr": options.lr})}
        learner = type(learner)(learner.options.model_copy(update=updates))
        loss = EpisodeLoss(learner, encoder, is_alpha)
        return Training(
            options, space, supernet, modules, encoder, learner, loss, lower, upper, shape, evaluation.shape, self.seed
        )


class OneShot(Strategy):
    """Base of the one-shot strategies: proposes the architectures derived from a supernet, best first.

    Subclasses define :attr:`name` and :attr:`method`.

    Raises:
        ConfigError: The space has no supernet that is made of choices.
    """

    Options = OneShotOptions
    name: ClassVar[str]
    """The name of the strategy, for messages."""
    method: ClassVar[type[Method]]
    """The algorithm that trains the supernet and derives architectures."""

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


def probability_scalars(space: SearchSpace, probabilities: Mapping[str, list[float]]) -> dict[str, float]:
    """Return probabilities by TensorBoard tag, such as ``probability/layer0.op/attention-4``.

    Args:
        space: The space of the choices.
        probabilities: The probabilities of each choice's values, by its name.

    Returns:
        One scalar for each value of each choice.
    """
    return {
        f"probability/{name}/{value}": p
        for name, row in probabilities.items()
        for value, p in zip(space.table[name].values, row, strict=True)
    }


def top_architectures(training: Training, scores: Mapping[Architecture, float], count: int) -> list[Architecture]:
    """Return the architectures with the highest scores, best first.

    Args:
        training: The training of the supernet.
        scores: Scores by architecture, higher is better.
        count: The number of architectures. If fewer have scores, unseen neighbours of the best follow.

    Returns:
        Distinct architectures; fewer than ``count`` if the space has no more.
    """
    top = {a.id: a for a in sorted(scores, key=scores.get, reverse=True)[:count]}
    for near in _neighbours(training, top):
        if len(top) >= count:
            break
        top[near.id] = near
    return list(top.values())


def _neighbours(training: Training, top: Mapping[str, Architecture]) -> Iterator[Architecture]:
    """Architectures close to the first of ``top`` that ``top`` does not contain yet."""
    rng = np.random.default_rng(training.seed)
    while near := neighbour(training.space, next(iter(top.values())), top, rng):
        yield near


def serialize_weights(supernet: ChoiceSupernet) -> np.ndarray:
    """Serialise the weights of a supernet whose choices are NNI's super-modules.

    Args:
        supernet: The trained supernet.

    Returns:
        The bytes of a safetensors file that the space's own supernet can load.
    """
    from safetensors.torch import save

    state = {name: t.detach().cpu().contiguous().clone() for name, t in weights_of(supernet).items()}
    return np.frombuffer(save(state), dtype=np.uint8)
