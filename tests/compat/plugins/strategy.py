"""A strategy that trains a supernet as its job, proposes the best sub-networks, and lets trials start from its weights.

FROZEN: written against nas-meta 0.1. Never edited to make a test pass, for an author's own plugin is not either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from nas_meta import WAIT, Architecture, NasMetaError, Outcome, PluginOptions, SearchContext, Strategy, Supernet
from nas_meta.evaluation import Evaluation, JobResult, Progress, packed, unpacked
from nas_meta.strategy import Wait
from nas_meta.tasks.episodes import episode


class OneShotOptions(PluginOptions):
    """Options of the strategy."""

    steps: int = Field(6, ge=1, description="training steps of the supernet")
    judged: int = Field(4, ge=1, description="sub-networks that are judged")


@dataclass(frozen=True)
class TrainSupernet:
    """The job: random paths are trained, then some of them judged."""

    steps: int
    judged: int
    seed: int

    def __call__(
        self, evaluation: Evaluation, checkpoint: np.ndarray | None = None
    ) -> Generator[Progress, None, JobResult]:
        supernet = evaluation.space.supernet()
        if supernet is None:
            raise NasMetaError("the space has no supernet")
        rng = np.random.default_rng(self.seed)
        learner = type(evaluation.learner)(evaluation.learner.options.model_copy(update={"steps": self.steps}))
        encoder, pool = evaluation.encoder(supernet), evaluation.tasks["meta-train"]
        supernet.select(evaluation.space.sample(rng))
        for step in learner.meta_train(encoder, pool, lambda i: episode(pool, evaluation.shape, self.seed, i)):
            supernet.select(evaluation.space.sample(rng))
            yield Progress(step.number, {"loss": step.loss})
        scores: dict[Architecture, float] = {}
        for _ in range(self.judged):
            architecture = evaluation.space.sample(rng)
            supernet.select(architecture)
            scores[architecture] = float(evaluation.accuracies(encoder, "meta-validation", 5).mean())
        best = sorted(scores, key=lambda a: -scores[a])
        return JobResult({"architectures": [dict(a.values) for a in best]}, packed(supernet))


class OneShot(Strategy):
    """The best sub-networks of a supernet, one trial at a time."""

    Options = OneShotOptions
    options: OneShotOptions

    def __init__(self, context: SearchContext, options: OneShotOptions | None = None):
        super().__init__(context, options)
        self.resolved = {"judged": min(self.options.judged, 4)}
        self.left: deque[Architecture] = deque()
        self.running: set[Architecture] = set()
        self.told: list[Outcome] = []
        self.supernet: Supernet | None = None

    def job(self) -> TrainSupernet:
        return TrainSupernet(self.options.steps, self.options.judged, self.context.seed)

    def receive(self, findings: Mapping[str, Any], weights: np.ndarray | None) -> None:
        self.left.extend(self.context.space.architecture(values) for values in findings["architectures"])
        self.supernet = self.context.space.supernet()
        if self.supernet is not None and weights is not None:
            self.supernet.load_state_dict(unpacked(weights.tobytes()))

    def start_of(self, architecture: Architecture) -> np.ndarray | None:
        return None if self.supernet is None else packed(self.supernet.extract(architecture))

    def ask(self) -> Architecture | Wait | None:
        if self.running:
            return WAIT
        if not self.left:
            return None
        self.running.add(self.left[0])
        return self.left.popleft()

    def tell(self, outcome: Outcome) -> None:
        self.running.discard(outcome.architecture)
        self.told.append(outcome)

    def close(self) -> None:
        if self.running:
            raise RuntimeError("a trial was never told of")


class Line(Strategy):
    """Architectures at random, the same for the same seed; what is told decides where the next are drawn from."""

    def __init__(self, context: SearchContext, options: PluginOptions | None = None):
        super().__init__(context, options)
        self.rng = np.random.default_rng(context.seed)
        self.best: Outcome | None = None

    def ask(self) -> Architecture | None:
        drawn = [self.context.space.sample(self.rng) for _ in range(2)]
        if self.best is None:
            return drawn[0]
        best = self.best.architecture.values
        return min(drawn, key=lambda a: sum(a.values.get(n) != v for n, v in best.items()))

    def tell(self, outcome: Outcome) -> None:
        if outcome.score is not None and (self.best is None or outcome.score > (self.best.score or 0)):
            self.best = outcome
