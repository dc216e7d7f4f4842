"""One trial, from an architecture to its metrics: build, pre-train, meta-train, validate, measure.

A trial is a pure function: the same inputs give the same numbers. It is also a generator, which yields
:class:`Progress` and returns a :class:`Result`: an engine streams it from a worker, and a debugger steps through it.
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
from nas_meta.errors import TrialError
from nas_meta.evaluation import full_way
from nas_meta.evaluation.final_training import FinalTraining, trained_further
from nas_meta.evaluation.further_metrics import further_metrics
from nas_meta.evaluation.hyperparameters import SearchedHyperparameters, with_options
from nas_meta.evaluation.meta_test import baseline_result, comparison_result, model_result
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL
from nas_meta.evaluation.progress import EvaluationSettings, JobResult, Progress, Result
from nas_meta.evaluation.protocols import DRAWS, FULL_WAY, check_ways
from nas_meta.learners.base import Learner
from nas_meta.learners.protonet import ProtoNet
from nas_meta.learners.training.distributed import Rank, process_group
from nas_meta.learners.training.patience import EarlyStopping
from nas_meta.models.adapters import adapter_names
from nas_meta.models.checks import check_model, check_pooling
from nas_meta.models.compute import Compute, forget_compiled
from nas_meta.models.encoder import Encoder
from nas_meta.models.inputs import example_inputs
from nas_meta.models.profiling import (
    LatencySettings,
    PeakMemory,
    flops,
    interval95,
    parameters,
    release_memory,
)  # fmt: skip
from nas_meta.models.state import deserialize_state, serialize_state
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace
from nas_meta.tasks.episodes import EpisodeShape, TrainShape, episode
from nas_meta.tasks.examples import TEXT
from nas_meta.tasks.pool import Tasks

if TYPE_CHECKING:
    from nas_meta.evaluation.pretraining.stage import Pretraining


@dataclass(frozen=True)
class Evaluation:
    """Everything that a trial needs besides its architecture; sent to every worker once.

    Attributes:
        space: The search space, prepared.
        learner: How models are meta-trained and adapt to a support set.
        tasks: Tokenised examples of meta-train, meta-validation and meta-test.
        shape: Shape of meta-validation and meta-test episodes.
        settings: Numbers of episodes, the seed of episodes, and the rungs.
        pooling: How token states become one embedding.
        compute: Device, precision and compilation of models.
        threads: CPU threads of a trial; 0 keeps torch's default.
        train: Values by which meta-training episodes differ from ``shape``.
        searched: Hyperparameters that the architecture decides; None if there are none.
        limits: Limits of the objectives; a candidate that violates one fails.
        ranked_by: The objective that ranks trials and decides whose weights are returned.
        pretraining: Pre-training stage of every model; None skips it.
        measured: Names of metrics that are measured only on request (:mod:`nas_meta.evaluation.further_metrics`).
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
    measured: Sequence[str] = ()

    @property
    def device(self) -> torch.device:
        """The device of the models."""
        return torch.device(self.compute.device)

    def of(self, architecture: Architecture) -> Evaluation:
        """Return this evaluation with the pooling, the learner and the episodes that an architecture chooses.

        Args:
            architecture: Architecture of the joint space.
        """
        chosen = self.space.pooling(architecture)
        if chosen is not None and chosen != self.pooling:
            stage = self.pretraining and replace(self.pretraining, pooling=chosen)
            return replace(self, pooling=chosen, pretraining=stage).of(architecture)
        if self.searched is None:
            return self
        values = self.searched.task_values(architecture)
        pooling = values.pop("pooling", self.pooling)
        train = replace(self.train, **{name.removeprefix("train_"): value for name, value in values.items()})
        return replace(
            self, learner=self.searched.learner_of(architecture), pooling=pooling, train=train, searched=None
        )

    def with_rungs(self, rungs: Sequence[int], episodes: int) -> Evaluation:
        """Return this evaluation with trials that pause at rungs; see :class:`EvaluationSettings`."""
        count = min(episodes, DRAWS) if self.settings.protocol == FULL_WAY else episodes
        return replace(self, settings=replace(self.settings, rungs=tuple(rungs), rung_episodes=count))

    def setup(self) -> None:
        """Prepare the process; called once per worker.

        Raises:
            ConfigError: The device or a compiler that :attr:`compute` needs is missing.
        """
        self.compute.start(self.threads)

    def run(
        self,
        job: Callable[[Evaluation, np.ndarray | None], Generator[Progress, None, JobResult]],
        checkpoint: np.ndarray | None = None,
        rank: Rank | None = None,
    ) -> Generator[Progress, None, JobResult | None]:
        """Run a strategy's job on a worker.

        Args:
            job: The job; see :class:`nas_meta.strategy.protocol.Job`.
            checkpoint: State of an earlier attempt to resume from; None starts anew.
            rank: Rank among the workers that share the job; all but the first yield and return nothing.
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
        donor: np.ndarray | None = None, steps: int | None = None,
    ) -> Generator[Progress, None, Result]:  # fmt: skip
        """Build, meta-train and validate an architecture; closing the generator at a rung ends the trial there.

        Args:
            architecture: Architecture of the joint space.
            seed: Seed of initial weights, dropout and training episodes.
            keep_above: Smallest value of :attr:`ranked_by`, signed so that higher is better, for which the trained
                weights are returned; None never returns them.
            start: Initial weights of the model (safetensors), instead of pre-training; by default those of the space.
            donor: Weights of another architecture that pre-training starts from, if ``start`` is None.
            steps: Training steps; by default those of the learner.

        Raises:
            TrialError: The model cannot be trained, its loss is not finite, or it violates a limit.
        """
        chosen = self.of(architecture)
        if steps is not None:
            chosen = replace(chosen, learner=with_options(chosen.learner, steps=steps))
        return (yield from chosen._trial(architecture, seed, keep_above, start, donor))

    def _trial(
        self, architecture: Architecture, seed: int, keep_above: float | None, start: np.ndarray | None,
        donor: np.ndarray | None,
    ) -> Generator[Progress, None, Result]:  # fmt: skip
        """The trial loop, after :meth:`of` has put in place what the architecture chooses.

        Invariant: observing a trial does not change it. Validations fork the random numbers, so interim validations and
        rungs leave training as it is, and the weights after step n depend on the arguments and n only.

        Example: 60 steps, ``interim_every`` 20, ``rungs`` (15,) and patience 0::

            step 15       validates on rung_episodes, yields metrics and scores, and waits to be resumed or closed
            steps 20, 40  validate on interim_episodes and yield the accuracy with the loss; other steps yield the loss
            end           validates on episodes, measures, and returns the Result
        """
        device = self.device
        shape = self.train.of(self.shape)
        check_ways(self.learner, shape, self.shape)
        try:
            memory = PeakMemory(device)
            torch.manual_seed(seed)
            model = self.space.build(architecture)
            check_model(model, self.space)
            pretrain_seconds = 0.0
            if start is not None:
                model.load_state_dict(deserialize_state(bytes(start)))
            elif self.pretraining is not None:
                self._check_limits({"params": parameters(model), "flops": self.flops(model)})
                pretrain_seconds = yield from self.pretraining(model.to(device), seed, self.compute, donor)
            # Seed again: a space may use more random numbers for the first model, when it loads shared weights.
            torch.manual_seed(seed)
            encoder = self.encoder(model)
            if self.space.modality == TEXT:
                check_pooling(encoder)
            size = {"params": parameters(encoder.model), "flops": self.flops(encoder.model)}
            if self.pretraining is not None:
                size["pretrain_seconds"] = pretrain_seconds
            adapted = sum(p.numel() for p in self.learner.adapted(encoder).values())
            size["adapted_share"] = adapted / size["params"]
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
                if self._is_interim(step.number):
                    interim = self.accuracies(encoder, "meta-validation", self.settings.interim_episodes)
                    values[ACCURACY] = float(interim.mean())
                    best.see(values[ACCURACY], encoder)
                if not best.over and self._is_rung(step.number):
                    metrics, scores = self._measure(encoder, self.settings.rung_episodes, size, started, memory)
                    values[ACCURACY] = metrics[ACCURACY]
                    yield Progress(step.number, values, metrics=metrics, scores=scores)
                else:
                    yield Progress(step.number, values)
                if best.over:
                    break
            best.restore(encoder)
            with encoder.remembering():
                self.finish(encoder)
                metrics, _ = self._measure(encoder, self.settings.episodes, size, started, memory)
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
        """The signed value by which trials are ranked; infinite if only the driver knows it, like a latency."""
        value = metrics.get(self.ranked_by.metric)
        return math.inf if value is None else self.ranked_by.sign * value

    def _measure(
        self, encoder: Encoder, episodes: int, size: Mapping[str, float], started: float, memory: PeakMemory
    ) -> tuple[dict[str, float], np.ndarray]:
        """Validate: the metrics of the trial at this step, and its accuracy on each meta-validation episode."""
        trained = time.perf_counter()
        scores = self.accuracies(encoder, "meta-validation", episodes)
        further = further_metrics(self, encoder, episodes)
        metrics = {
            ACCURACY: float(scores.mean()),
            ACCURACY + INTERVAL: interval95(scores),
            **size,
            "train_seconds": trained - started,
            "evaluate_seconds": time.perf_counter() - trained,
            "peak_memory": memory.read(),
            **further,
        }
        return metrics, scores

    def latency(self, architecture: Architecture, settings: LatencySettings) -> Result:
        """Measure the latency of an architecture; see :func:`nas_meta.evaluation.deployed.measured_latency`."""
        from nas_meta.evaluation.deployed import measured_latency

        return Result(measured_latency(self, architecture, settings))

    def test(self, architecture: Architecture, weights: np.ndarray) -> Result:
        """Test an architecture with trained weights (safetensors) on the meta-test episodes."""
        chosen = self.of(architecture)
        return model_result(chosen, chosen.restored(architecture, bytes(weights)), chosen.learner)

    def test_reference(self, space: SearchSpace | None = None) -> Result:
        """Test the untrained reference model of a space, by default the searched one, by nearest centroid."""
        model = (space or self.space).reference()
        assert model is not None
        return model_result(self, self.bare_encoder(model.to(self.device)), ProtoNet())

    def test_baseline(self, name: str) -> Result:
        """Test one of :data:`nas_meta.evaluation.baselines.BASELINES` on the same meta-test episodes."""
        return baseline_result(self, name)

    def train_further(
        self, architecture: Architecture, weights: np.ndarray, seed: int, final: FinalTraining
    ) -> Generator[Progress, None, Result]:
        """Train the model of a trial further; see :func:`nas_meta.evaluation.final_training.trained_further`."""
        return (yield from trained_further(self, architecture, weights, seed, final))

    def compare(
        self, architecture: Architecture, seed: int, final: FinalTraining | None = None
    ) -> Generator[Progress, None, Result]:
        """Train an architecture that the best trial is compared with, as a trial, and test it on the same episodes."""
        return (yield from comparison_result(self, architecture, seed, final))

    def encoder(self, model: torch.nn.Module) -> Encoder:
        """Equip a model for the learner and add pooling and the learner's own modules.

        Args:
            model: A model of the space; the learner may insert adapters into it.

        Returns:
            The encoder, on :attr:`device`.

        Raises:
            TrialError: The model lacks something that the learner or the pooling needs.
        """
        existing = set(adapter_names(model))
        self.learner.equip(model)
        encoder = self.bare_encoder(model).to(self.device)
        encoder.inserted = frozenset(adapter_names(model)) - existing
        encoder.learned = self.learner.learned(encoder, self.shape.ways).to(self.device)
        return encoder

    def finish(self, encoder: Encoder) -> None:
        """Fit what the learner adds to a trained encoder, such as a head; the random state of torch is preserved."""
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            self.learner.finish(encoder, self.tasks, self.shape, self.settings.seed, self.settings.episodes)

    def flops(self, model: torch.nn.Module) -> int:
        """Return the floating-point operations of a model for one example, of ``flops_tokens`` tokens if a text."""
        return flops(model, example_inputs(self.space, 1, self.settings.flops_tokens))

    def restored(self, architecture: Architecture, weights: bytes) -> Encoder:
        """Rebuild the encoder of an architecture with the weights that a trial returned (safetensors).

        Raises:
            TrialError: The bytes are not weights, or belong to another model.
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
        """Evaluate an encoder on the first episodes of a split; the random state of torch is preserved.

        Args:
            encoder: The encoder; it is left as it was.
            split: ``meta-train``, ``meta-validation`` or ``meta-test``.
            count: Number of episodes, the same ones in every call.
            learner: Learner that classifies; by default :attr:`learner`.

        Returns:
            ``[count]``, the accuracy on each episode, from 0 to 1.
        """
        judge, pool = learner or self.learner, self.tasks[split]
        full_way.check_learner(judge, self.settings.protocol)
        # An interim validation must not change the random numbers of the training steps that follow.
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            return full_way.scores(self, split, count, lambda tasks: judge.accuracies(encoder, pool, tasks))

    def bare_encoder(self, model: torch.nn.Module) -> Encoder:
        """Add pooling to a model of the space, and nothing of the learner."""
        return Encoder(model, self.pooling, self.compute, example_inputs(self.space, 1, 1))

    def _check_limits(self, metrics: Mapping[str, float]) -> None:
        for problem in filter(None, (limit.problem(metrics) for limit in self.limits)):
            raise TrialError(f"it violates a limit of the objectives: {problem}")

    def _is_rung(self, step: int) -> bool:
        """Whether the trial pauses after a step; there is no rung at the last step, where it ends anyway."""
        return step in self.settings.rungs and step < self.learner.options.steps

    def _is_interim(self, step: int) -> bool:
        """Whether an interim validation follows a step; at the last step, only early stopping needs one."""
        every, steps = self.settings.interim_every, self.learner.options.steps
        if not every:
            return False
        return step % every == 0 if step < steps else self.learner.options.training.patience > 0


def result_of(trial: Generator[Progress, None, Result]) -> Result:
    """Run a trial to its end, through all rungs, and return its result."""
    try:
        while True:
            next(trial)
    except StopIteration as end:
        return end.value
