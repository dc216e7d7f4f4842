"""The strategy ``supernet``: meta-trains an elastic encoder once, then trains only its best sub-networks further.

1. The supernet of the space is meta-trained by the sandwich rule (:mod:`strategies.supernet.sandwich`).
2. ``surrogate`` searches among its sub-networks. Each is scored with inherited weights on few texts
   (:mod:`strategies.supernet.inherited_weights`); the best are scored again on the episodes of the trials.
3. The best of those are proposed, front by front. Their trials start from the inherited weights.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from nas_meta import Architecture, Objective, Outcome, PluginOptions, SearchContext, Strategy, Supernet
from nas_meta.core.objectives import front_ranks, signed_values
from nas_meta.errors import ConfigError
from nas_meta.evaluation.progress import JobResult, Progress
from nas_meta.evaluation.trial import Evaluation
from nas_meta.learners.metric import MetricLearner
from nas_meta.learners.training.distributed import rank, ranks, split_evenly
from nas_meta.models.encoder import Encoder
from nas_meta.models.state import deserialize_state, restore_training, serialize_state, serialize_training
from nas_meta.space.wrappers import space_name
from nas_meta.tasks.episodes import Episode, episode
from strategies.nni.random_search import Random
from strategies.optuna.nsga2 import NSGA2
from strategies.shared.pareto_selection import select_best
from strategies.supernet.inherited_weights import METRICS, VALIDATION, Inherited, size_of, supernet_encoder
from strategies.supernet.sandwich import Sandwich, check_learner
from strategies.surrogate.surrogate import Surrogate

FIRST_EPISODE = 1_000_000  # number of the supernet's first episode, so that its trials train on other episodes
METHODS: Mapping[str, type[Strategy]] = {"surrogate": Surrogate, "nsga2": NSGA2, "random": Random}
BATCH = 10  # sub-networks that are proposed before they are scored; NSGA-II proposes a generation
RESCORED_PER_TRIAL = 1.5  # sub-networks that are scored again, per trial


class SupernetOptions(PluginOptions):
    """Options of ``supernet``."""

    steps: int = Field(150, ge=1, description="training steps of the supernet")
    lr: float | None = Field(
        None, gt=0, description="highest learning rate of the supernet; by default twice learner.lr"
    )
    random: int = Field(
        2, ge=0, description="random sub-networks per training step, in addition to the largest and a smallest one"
    )
    distil: bool = Field(
        True, description="whether the largest sub-network teaches the others; otherwise all learn from the labels"
    )
    trial_steps: int | None = Field(
        None,
        ge=0,
        description="steps that a trial trains from its inherited weights; by default a quarter of learner.steps",
    )
    judged: int = Field(200, ge=1, description="number of sub-networks that are scored with inherited weights")
    texts: int = Field(
        12, ge=1, description="texts of each meta-validation class that sub-networks are first scored on"
    )
    method: Literal["surrogate", "nsga2", "random"] = Field(
        "surrogate", description="the strategy that searches among the sub-networks"
    )
    workers: int = Field(
        1,
        ge=1,
        description="number of workers that train the supernet, each on different episodes, and share the scoring",
    )
    checkpoint_every: int = Field(50, ge=1, description="steps between two checkpoints of the supernet")


class SupernetSearch(Strategy):
    """Supernet search: scores sub-networks with shared weights and trains only the best of them further.

    Raises:
        ConfigError: The space has no supernet, or an objective is not known before training.
    """

    Options = SupernetOptions

    def __init__(self, context: SearchContext, options: SupernetOptions | None = None):
        super().__init__(context, options)
        for objective in context.objectives:
            if objective.metric not in METRICS:
                raise ConfigError(
                    f"strategy 'supernet' scores sub-networks without training, but the objective {objective.metric} "
                    f"is known only after training; expected objectives among {', '.join(METRICS)}"
                )
        supernet = context.space.supernet()
        if supernet is None:
            space = space_name(context.space)
            raise ConfigError(
                f"strategy 'supernet' trains a supernet, but search space {space} has none; expected a space with one, "
                "such as bert-subnet, or another strategy, such as auto"
            )
        self._supernet: Supernet = supernet
        self._queue: list[Architecture] = []

    def job(self) -> SupernetJob:
        context = self.context
        return SupernetJob(self.options, tuple(context.objectives), context.trials, context.seed)

    def receive(self, findings: Mapping[str, Any], weights: np.ndarray | None) -> None:
        self._supernet.load_state_dict(deserialize_state(bytes(weights)))
        self._queue = proposals(findings["judged"], self.context.objectives, self.context.trials)

    def ask(self) -> Architecture | None:
        return self._queue.pop(0) if self._queue else None

    def tell(self, outcome: Outcome) -> None:
        """Do nothing: the proposals were fixed by the scores with inherited weights."""

    def start_of(self, architecture: Architecture) -> np.ndarray:
        """Return the inherited weights; what the learner adds to the model, such as a head, is initialised anew."""
        return serialize_state(self._supernet.extract(architecture))

    def trial_steps(self, steps: int) -> int:
        """Return ``trial_steps``, by default a quarter of the steps: inherited weights are nearly trained."""
        return -(-steps // 4) if self.options.trial_steps is None else self.options.trial_steps


def proposals(judged: Sequence[Mapping[str, Any]], objectives: Sequence[Objective], count: int) -> list[Architecture]:
    """Select the best of the scored sub-networks.

    Args:
        judged: The rows of the job's findings (:class:`SupernetJob`).
        objectives: The objectives of the search.
        count: The largest number of architectures.

    Returns:
        Architectures, best first: those that were scored on the episodes of the trials, then the others.
    """
    chosen: list[Architecture] = []
    for twice in (True, False):
        rows = [row for row in judged if row["twice"] == twice]
        if rows and len(chosen) < count:
            values = np.array([signed_values(row, objectives) for row in rows])
            chosen += [Architecture(rows[i]["architecture"]) for i in select_best(values, count - len(chosen))]
    return chosen


@dataclass(frozen=True)
class SupernetJob:
    """Trains the supernet, then scores sub-networks; each training step and each score counts as a step.

    Its findings are ``judged``, a row for each sub-network (``architecture``, its metrics, and ``twice``: whether it
    was scored again, on the episodes of the trials), and ``front``, the Pareto front of the rows with ``twice``.

    Attributes:
        options: The options of the strategy.
        objectives: The objectives of the search.
        trials: The number of trials that follow.
        seed: The seed of the search.
    """

    options: SupernetOptions
    objectives: tuple[Objective, ...]
    trials: int
    seed: int

    @property
    def workers(self) -> int:
        """The number of workers that run the job together."""
        return self.options.workers

    @property
    def again(self) -> int:
        """The largest number of sub-networks that are scored again."""
        return min(self.options.judged, max(10, round(RESCORED_PER_TRIAL * self.trials)))

    @property
    def steps(self) -> int:
        return self.options.steps + self.options.judged + self.again

    def __call__(
        self, evaluation: Evaluation, checkpoint: np.ndarray | None = None
    ) -> Generator[Progress, None, JobResult]:
        learner = check_learner(evaluation.learner)
        torch.manual_seed(self.seed)
        supernet = evaluation.space.supernet()
        encoder = supernet_encoder(evaluation, supernet)
        yield from self._train(evaluation, learner, supernet, encoder, checkpoint)
        encoder.eval()
        weights = serialize_state(supernet)
        inherited = Inherited(evaluation, supernet, encoder, self.options.texts)
        rows = yield from self._score(evaluation, inherited)
        done = [row for row in rows if row["twice"]]
        ranks = front_ranks(np.array([signed_values(row, self.objectives) for row in done]))
        return JobResult({"judged": rows, "front": [done[i] for i in np.flatnonzero(ranks == 0)]}, weights)

    def _train(
        self,
        evaluation: Evaluation,
        learner: MetricLearner,
        supernet: Supernet,
        encoder: Encoder,
        checkpoint: np.ndarray | None,
    ) -> Iterator[Progress]:
        """Sandwich training; the learning rate warms up over a tenth of the steps, then decays along a cosine."""
        o, space = self.options, evaluation.space
        training = learner.options.training.model_copy(update={"warmup": 0.1, "decay": "cosine"})
        updates = {"steps": o.steps, "lr": o.lr or 2 * learner.options.lr, "training": training}
        tokens = evaluation.settings.flops_tokens
        size = cache(lambda architecture: size_of(space, supernet, architecture, tokens)["params"])
        options = learner.options.model_copy(update=updates)
        sandwich = Sandwich(learner, options, space, supernet, size, o.random, o.distil, self.seed)
        pool, shape = evaluation.tasks["meta-train"], evaluation.train.of(evaluation.shape)
        start = None
        if checkpoint is not None:
            parts = restore_training(checkpoint, encoder)
            start, sandwich.rng.bit_generator.state = parts["learner"], parts["rng"]

        def draw(i: int) -> Episode:
            batch, place = divmod(i, options.meta_batch)
            index = (batch * ranks() + rank()) * options.meta_batch + place  # ranks draw disjoint episodes
            return episode(pool, shape, self.seed, FIRST_EPISODE + index)

        for step in sandwich.meta_train(encoder, pool, draw, start):
            values = {f"meta-train/{role}": loss for role, loss in sandwich.losses.items()}
            saved = None
            if step.number % o.checkpoint_every == 0 or step.number == o.steps:
                saved = serialize_training(encoder, learner=step.state(), rng=sandwich.rng.bit_generator.state)
                supernet.select(sandwich.largest)
                few = evaluation.settings.interim_episodes
                values["meta-validation/largest"] = float(evaluation.accuracies(encoder, VALIDATION, few).mean())
            yield Progress(step.number, values, saved)

    def _score(self, evaluation: Evaluation, inherited: Inherited) -> Generator[Progress, None, list[dict[str, Any]]]:
        """Score sub-networks, the best of them twice; returns the rows of the findings in the order of the search."""
        search = self._search(evaluation)
        try:
            with inherited.sharing():
                rows = yield from self._score_all(search, inherited)
        finally:
            search.close()
        chosen = select_best(np.array([signed_values(row, self.objectives) for row in rows]), self.again)
        with inherited.sharing():
            again = [Architecture(rows[i]["architecture"]) for i in chosen]
            for number, (i, metrics) in enumerate(split_evenly(again, inherited.second), start=1):
                rows[chosen[i]] |= {**metrics, "twice": True}
                yield self._progress(self.options.judged + number, "judged again", metrics)
        return rows

    def _score_all(self, search: Strategy, inherited: Inherited) -> Generator[Progress, None, list[dict[str, Any]]]:
        """Score the sub-networks that the search proposes, one generation at a time; returns a row for each."""
        rows: list[dict[str, Any]] = []
        while len(rows) < self.options.judged:
            size = min(getattr(search, "population", BATCH), self.options.judged - len(rows))
            batch = [a for _ in range(size) if isinstance(a := search.ask(), Architecture)]
            if not batch:
                break
            scores = {}
            for i, metrics in split_evenly(batch, inherited.first):
                scores[i] = metrics
                yield self._progress(len(rows) + len(scores), "judged", metrics)
            for i, architecture in enumerate(batch):
                rows.append({"architecture": dict(architecture.values), **scores[i], "twice": False})
                values = signed_values(scores[i], self.objectives)
                search.tell(Outcome(architecture, "completed", scores[i], values[0], values))
        return rows

    def _progress(self, number: int, what: str, metrics: Mapping[str, float]) -> Progress:
        """Progress with the metrics under the tag ``what``, after ``number`` scores."""
        return Progress(self.options.steps + number, {f"{what}/{name}": value for name, value in metrics.items()})

    def _search(self, evaluation: Evaluation) -> Strategy:
        """The strategy that searches among sub-networks, with their number as its budget of trials."""
        context = SearchContext(
            space=evaluation.space, objectives=self.objectives, trials=self.options.judged, workers=BATCH,
            seed=self.seed, tokens=evaluation.settings.flops_tokens,
        )  # fmt: skip
        return METHODS[self.options.method](context)
