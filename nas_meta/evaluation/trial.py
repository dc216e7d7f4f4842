"""One trial, from architecture to metrics. Pure: the same inputs give the same numbers.

A trial is a generator that yields :class:`Progress` and returns a :class:`Result`, so that an engine can stream it from
a worker and a debugger can step through it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas_meta.core.objectives import Limit, Objective
from nas_meta.errors import ConfigError, TrialError
from nas_meta.evaluation.baselines import baseline_accuracies
from nas_meta.evaluation.hyperparameters import SearchedHyperparameters
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL
from nas_meta.evaluation.progress import EvaluationSettings, JobResult, Progress, Result
from nas_meta.learners.base import Learner
from nas_meta.learners.protonet import ProtoNet
from nas_meta.learners.training.distributed import Rank, process_group
from nas_meta.learners.training.patience import EarlyStopping
from nas_meta.models.adapters import adapter_names, without_adapters
from nas_meta.models.checks import check_model, check_pooling
from nas_meta.models.compute import Compute, forget_compiled
from nas_meta.models.encoder import Encoder
from nas_meta.models.inputs import example_inputs
from nas_meta.models.profiling import (
    LatencySettings,
    PeakMemory,
    flops,
    interval95,
    latency,
    parameters,
    release_memory,
)
from nas_meta.models.state import deserialize_state, serialize_state
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace
from nas_meta.tasks.episodes import EpisodeShape, TrainShape, episode, episodes
from nas_meta.tasks.examples import TEXT
from nas_meta.tasks.pool import Tasks

if TYPE_CHECKING:
    from nas_meta.evaluation.pretraining.stage import Pretraining


@dataclass(frozen=True)
class Evaluation:
    """Everything a trial needs but the architecture: travels to every worker once.

    Attributes:
        shape: the episodes of meta-validation and meta-test, and of meta-training as far as ``train`` does not differ.
        searched: what of the learner and the tasks is chosen by the architecture, if anything.
        limits: a model that breaks one is not trained.
        ranked_by: The objective that ranks trials, and so decides whose weights are worth keeping.
        compute: on what and how models compute.
        threads: CPU threads of a trial; 0 leaves torch's own choice.
        pretraining: what a model goes through before it is meta-trained (:mod:`nas_meta.evaluation.pretraining.stage`).
    """

    space: SearchSpace
    learner: Learner
    tasks: Tasks
    shape: EpisodeShape
    settings: EvaluationSettings
    pooling: str = "mean"
    compute: Compute = field(default_factory=Compute)
    threads: int = 0
    train: TrainShape = field(default_factory=TrainShape)
    searched: SearchedHyperparameters | None = None
    limits: Sequence[Limit] = ()
    ranked_by: Objective = field(default_factory=lambda: Objective(ACCURACY))
    pretraining: Pretraining | None = None

    @property
    def device(self) -> torch.device:
        """Where models are."""
        return torch.device(self.compute.device)

    def of(self, architecture: Architecture) -> Evaluation:
        """This evaluation with the pooling, the learner and the tasks that the architecture chose."""
        own = self.space.pooling(architecture)
        if own is not None and own != self.pooling:
            stage = self.pretraining and replace(self.pretraining, pooling=own)
            return replace(self, pooling=own, pretraining=stage).of(architecture)
        if self.searched is None:
            return self
        values = self.searched.task_values(architecture)
        pooling = values.pop("pooling", self.pooling)
        train = replace(self.train, **{name.removeprefix("train_"): value for name, value in values.items()})
        return replace(
            self, learner=self.searched.learner_of(architecture), pooling=pooling, train=train, searched=None
        )

    def with_rungs(self, rungs: Sequence[int], episodes: int) -> Evaluation:
        """This evaluation, but its trials wait at rungs; see :class:`EvaluationSettings`."""
        return replace(self, settings=replace(self.settings, rungs=tuple(rungs), rung_episodes=episodes))

    def setup(self) -> None:
        """Once per worker.

        Raises:
            ConfigError: it cannot compute as it is asked to.
        """
        self.compute.start(self.threads)

    def run(
        self,
        job: Callable[[Evaluation, np.ndarray | None], Generator[Progress, None, JobResult]],
        checkpoint: np.ndarray | None = None,
        rank: Rank | None = None,
    ) -> Generator[Progress, None, JobResult | None]:
        """Work of a strategy that is no trial, on a worker, from its start or from a checkpoint.

        Args:
            rank: this worker's among those that do it together; all but the first keep silent.
        """
        try:
            with process_group(rank):
                steps = job(self, checkpoint)
                if rank is None or rank.number == 0:
                    return (yield from steps)
                for _ in steps:
                    continue
                return None
        finally:
            release_memory(self.device)

    def trial(
        self, architecture: Architecture, seed: int, keep_above: float | None = None, start: np.ndarray | None = None,
        donor: np.ndarray | None = None,
    ) -> Generator[Progress, None, Result]:  # fmt: skip
        """Builds, meta-trains and meta-validates an architecture; closed at a rung, it ends there and frees its memory.

        Args:
            seed: of initial weights, dropout and training episodes.
            keep_above: The weights are returned where ``ranked_by``, signed so that higher is better, is at least this;
                None returns no weights.
            start: the model's weights to start from (safetensors), pre-trained if that is asked for; by default those
                it is built with.
            donor: without ``start``, the weights of another architecture from which pre-training begins.
        """
        return (yield from self.of(architecture)._trial(architecture, seed, keep_above, start, donor))

    def _trial(
        self, architecture: Architecture, seed: int, keep_above: float | None, start: np.ndarray | None,
        donor: np.ndarray | None,
    ) -> Generator[Progress, None, Result]:  # fmt: skip
        device = self.device
        shape = self.train.of(self.shape)
        check_ways(self.learner, shape, self.shape)
        try:
            memory = PeakMemory(device)
            torch.manual_seed(seed)
            model = self.space.build(architecture)
            check_model(model, self.space)
            spent = 0.0
            if start is not None:
                model.load_state_dict(deserialize_state(bytes(start)))
            elif self.pretraining is not None:
                self._check_limits({"params": parameters(model), "flops": self.flops(model)})
                spent = yield from self.pretraining(model.to(device), seed, self.compute, donor)
            # Again: a space may draw more numbers for its first architecture, where it loads what all share.
            torch.manual_seed(seed)
            encoder = self.encoder(model)
            if self.space.modality == TEXT:
                check_pooling(encoder)
            size = {
                "params": parameters(encoder.model),
                "flops": self.flops(encoder.model),
            }
            if self.pretraining is not None:
                size["pretrain_seconds"] = spent
            moving = sum(p.numel() for p in self.learner.adapted(encoder).values())
            size["adapted_share"] = moving / size["params"]
            body = encoder.body_parameters(self.learner.options.train_embeddings)
            size["trained_params"] = sum(p.numel() for p in (*body, *encoder.learned.parameters()))
            self._check_limits(size)
            if self.compute.compile:
                encoder.compile()
            best = EarlyStopping(self.learner.options.training.patience)
            started = time.perf_counter()
            train = self.tasks["meta-train"]
            for step in self.learner.meta_train(encoder, train, lambda i: episode(train, shape, seed, i)):
                values = {"loss": step.loss, **step.values}
                if self._looks(step.number):
                    interim = self.accuracies(encoder, "meta-validation", self.settings.interim_episodes)
                    values[ACCURACY] = float(interim.mean())
                    best.see(values[ACCURACY], encoder)
                if not best.over and self._is_rung(step.number):
                    metrics, scores = self._measured(encoder, self.settings.rung_episodes, size, started, memory)
                    values[ACCURACY] = metrics[ACCURACY]
                    yield Progress(step.number, values, metrics=metrics, scores=scores)
                else:
                    yield Progress(step.number, values)
                if best.over:
                    break
            best.restore(encoder)
            metrics, _ = self._measured(encoder, self.settings.episodes, size, started, memory)
            self._check_limits(metrics)
            weights = None
            if keep_above is not None and self._rank_value(metrics) >= keep_above:
                weights = serialize_state(encoder)
            return Result(metrics, weights)
        finally:
            model = encoder = None
            if self.compute.compile:
                forget_compiled()
            release_memory(device)

    def _rank_value(self, metrics: Mapping[str, float]) -> float:
        """The signed value by which trials are ranked; infinite where only the driver knows it (a latency)."""
        value = metrics.get(self.ranked_by.metric)
        return math.inf if value is None else self.ranked_by.sign * value

    def _measured(
        self, encoder: Encoder, episodes: int, size: Mapping[str, float], started: float, memory: PeakMemory
    ) -> tuple[dict[str, float], np.ndarray]:
        """A trial's metrics as it stands, and the accuracy of each of the first meta-validation episodes."""
        trained = time.perf_counter()
        scores = self.accuracies(encoder, "meta-validation", episodes)
        metrics = {
            ACCURACY: float(scores.mean()),
            ACCURACY + INTERVAL: interval95(scores),
            **size,
            "train_seconds": trained - started,
            "evaluate_seconds": time.perf_counter() - trained,
            "peak_memory": memory.read(),
        }
        return metrics, scores

    def latency(self, architecture: Architecture, settings: LatencySettings) -> Result:
        """How long the model of an architecture takes, as it would be exported; the weights make no difference.

        In the precision of trials, and not compiled.
        """
        model = without_adapters(self.space.build(architecture), merge=True).to(self.device)
        try:
            with self.compute.autocast():
                return Result(latency(model, settings, example_inputs(self.space, settings.batch, settings.tokens)))
        finally:
            del model
            release_memory(self.device)

    def test(self, architecture: Architecture, weights: np.ndarray) -> Result:
        """Scores trained weights on meta-test episodes."""
        chosen = self.of(architecture)
        return chosen._test_result(chosen.restored(architecture, bytes(weights)), chosen.learner)

    def test_reference(self, space: SearchSpace | None = None) -> Result:
        """Scores a space's unsearched model with nearest centroid, without training, on the same episodes.

        Args:
            space: by default the one that is searched.
        """
        model = (space or self.space).reference()
        assert model is not None
        return self._test_result(self._encoder(model.to(self.device)), ProtoNet())

    def test_baseline(self, name: str) -> Result:
        """Scores one of :data:`nas_meta.evaluation.baselines.BASELINES` on the same meta-test episodes."""
        pool = self.tasks["meta-test"]
        tasks = list(episodes(pool, self.shape, self.settings.seed, self.settings.test_episodes))
        scores = baseline_accuracies(name, pool, tasks)
        return Result({f"test_{ACCURACY}": float(scores.mean()), f"test_{ACCURACY}{INTERVAL}": interval95(scores)})

    def encoder(self, model: torch.nn.Module) -> Encoder:
        """A model with pooling and what the learner learns beside it, on the device."""
        own = set(adapter_names(model))
        self.learner.equip(model)
        encoder = self._encoder(model).to(self.device)
        encoder.inserted = frozenset(adapter_names(model)) - own
        encoder.learned = self.learner.learned(encoder, self.shape.ways).to(self.device)
        return encoder

    def flops(self, model: torch.nn.Module) -> int:
        """Floating-point operations of a model for one example."""
        return flops(model, example_inputs(self.space, 1, self.settings.flops_tokens))

    def restored(self, architecture: Architecture, weights: bytes) -> Encoder:
        """The encoder of an architecture with what a trial trained (safetensors bytes).

        Raises:
            TrialError: they are no weights, or those of another model.
        """
        encoder, state = self.of(architecture).encoder(self.space.build(architecture)), deserialize_state(weights)
        try:
            encoder.load_state_dict(state)
        except RuntimeError as error:
            raise TrialError(
                f"the weights do not fit the architecture: {str(error).splitlines()[-1].strip()}"
            ) from error
        return encoder

    def accuracies(self, encoder: Encoder, split: str, count: int, learner: Learner | None = None) -> np.ndarray:
        """Accuracy on each of the first ``count`` episodes of a split."""
        pool = self.tasks[split]
        tasks = list(episodes(pool, self.shape, self.settings.seed, count))
        # A look at the accuracy in the middle of meta-training leaves the random numbers of the rest as they are.
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            return (learner or self.learner).accuracies(encoder, pool, tasks)

    def _encoder(self, model: torch.nn.Module) -> Encoder:
        return Encoder(model, self.pooling, self.compute, example_inputs(self.space, 1, 1))

    def _test_result(self, encoder: Encoder, learner: Learner) -> Result:
        scores = self.accuracies(encoder, "meta-test", self.settings.test_episodes, learner)
        return Result(
            {
                f"test_{ACCURACY}": float(scores.mean()),
                f"test_{ACCURACY}{INTERVAL}": interval95(scores),
                "params": parameters(encoder.model),
                "flops": self.flops(encoder.model),
            }
        )

    def _check_limits(self, metrics: Mapping[str, float]) -> None:
        for problem in filter(None, (limit.problem(metrics) for limit in self.limits)):
            raise TrialError(f"it breaks a limit of the objectives: {problem}")

    def _is_rung(self, step: int) -> bool:
        """Whether the trial waits after that step; after the last one it is over anyway."""
        return step in self.settings.rungs and step < self.learner.options.steps

    def _looks(self, step: int) -> bool:
        """Whether there is an interim validation after that step; the last one only serves early stopping."""
        every, steps = self.settings.interim_every, self.learner.options.steps
        if not every:
            return False
        return step % every == 0 if step < steps else self.learner.options.training.patience > 0


def check_ways(learner: Learner, train: EpisodeShape, judged: EpisodeShape) -> None:
    """Raises ConfigError where a learner whose head has a fixed number of classes would be trained on another."""
    if not learner.any_ways and train.ways != judged.ways:
        raise ConfigError(
            f"tasks.train_ways is {train.ways}, but the head of {type(learner).__name__} has tasks.ways = "
            f"{judged.ways} classes; expected the same, or a learner without such a head, such as protonet"
        )


def result_of(trial: Generator[Progress, None, Result]) -> Result:
    """Runs a trial to its end."""
    try:
        while True:
            next(trial)
    except StopIteration as end:
        return end.value
