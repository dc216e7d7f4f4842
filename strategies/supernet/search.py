"""An elastic pretrained encoder, meta-trained once; the best of very many sub-networks are trained further.

1. The supernet of the space is trained over episodes by the sandwich rule (:mod:`strategies.supernet.sandwich`).
2. NSGA-II searches among its sub-networks, each judged with inherited weights
   (:mod:`strategies.supernet.inherited_weights`), first on few texts; the best are judged again as trials are.
3. The best of those, front by front, are proposed: ordinary trials, which start from the inherited weights.
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

EPISODES_FROM = 1_000_000  # the supernet's first episode: trials that start from it have others
BATCH = 50  # sub-networks that are proposed before the first of them is judged; of NSGA-II a generation
AGAIN = 1.5  # sub-networks that are judged again, for each trial


class SupernetOptions(PluginOptions):
    """Options of ``supernet``."""

    steps: int = Field(150, ge=1, description="of the supernet's training")
    lr: float | None = Field(None, gt=0, description="its highest learning rate; by default twice the learner's")
    random: int = Field(2, ge=0, description="random sub-networks in a step, beside the largest and the smallest")
    distil: bool = Field(True, description="the largest teaches the others; otherwise all learn from the labels")
    judged: int = Field(1000, ge=1, description="sub-networks that are judged with inherited weights")
    texts: int = Field(12, ge=1, description="of each meta-validation class, on which they are judged first")
    method: Literal["nsga2", "random"] = Field("nsga2", description="how the search among sub-networks goes")
    workers: int = Field(
        1, ge=1, description="workers that train the supernet together, each on episodes of its own, and judge together"
    )
    checkpoint_every: int = Field(50, ge=1, description="steps between two checkpoints of the supernet")


class SupernetSearch(Strategy):
    """One supernet for all: sub-networks are judged with inherited weights, only the front is trained further.

    Raises:
        ConfigError: the space has no supernet, or an objective is not known before training.
    """

    Options = SupernetOptions

    def __init__(self, context: SearchContext, options: SupernetOptions | None = None):
        super().__init__(context, options)
        for objective in context.objectives:
            if objective.metric not in METRICS:
                raise ConfigError(
                    f"strategy 'supernet' judges sub-networks without training, but the objective {objective.metric} "
                    f"is only known of trained ones; expected objectives among {', '.join(METRICS)}"
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
        """Nothing is learned from trials: all was decided with inherited weights."""

    def start_of(self, architecture: Architecture) -> np.ndarray:
        """The inherited weights of the model; what the learner learns beside it (a scale, a head) starts anew."""
        return serialize_state(self._supernet.extract(architecture))


def proposals(judged: Sequence[Mapping[str, Any]], objectives: Sequence[Objective], count: int) -> list[Architecture]:
    """The ``count`` best, those first that were judged as trials are."""
    chosen: list[Architecture] = []
    for twice in (True, False):
        rows = [row for row in judged if row["twice"] == twice]
        if rows and len(chosen) < count:
            values = np.array([signed_values(row, objectives) for row in rows])
            chosen += [Architecture(rows[i]["architecture"]) for i in select_best(values, count - len(chosen))]
    return chosen


@dataclass(frozen=True)
class SupernetJob:
    """Trains the supernet, then judges sub-networks; a step is one of the training or one sub-network judged.

    Its findings: ``judged``, a row for each sub-network (``architecture``, its metrics, and whether they were measured
    ``twice``, the second time as a trial does), and ``front``, the rows of the Pareto front among the latter.
    """

    options: SupernetOptions
    objectives: tuple[Objective, ...]
    trials: int
    seed: int

    @property
    def workers(self) -> int:
        """How many workers do it together."""
        return self.options.workers

    @property
    def again(self) -> int:
        """How many are judged again, at most."""
        return min(self.options.judged, max(10, round(AGAIN * self.trials)))

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
        rows = yield from self._judge(evaluation, inherited)
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
        """The sandwich training, with a warm-up over a tenth of the steps and a cosine behind it."""
        o, space = self.options, evaluation.space
        training = learner.options.training.model_copy(update={"warmup": 0.1, "decay": "cosine"})
        changed = {"steps": o.steps, "lr": o.lr or 2 * learner.options.lr, "training": training}
        tokens = evaluation.settings.flops_tokens
        size = cache(lambda architecture: size_of(space, supernet, architecture, tokens)["params"])
        options = learner.options.model_copy(update=changed)
        sandwich = Sandwich(learner, options, space, supernet, size, o.random, o.distil, self.seed)
        pool, shape = evaluation.tasks["meta-train"], evaluation.train.of(evaluation.shape)
        start = None
        if checkpoint is not None:
            parts = restore_training(checkpoint, encoder)
            start, sandwich.rng.bit_generator.state = parts["learner"], parts["rng"]

        def draw(i: int) -> Episode:
            batch, place = divmod(i, options.meta_batch)
            mine = (batch * ranks() + rank()) * options.meta_batch + place
            return episode(pool, shape, self.seed, EPISODES_FROM + mine)

        for step in sandwich.meta_train(encoder, pool, draw, start):
            values = {f"meta-train/{role}": loss for role, loss in sandwich.losses.items()}
            kept = None
            if step.number % o.checkpoint_every == 0 or step.number == o.steps:
                kept = serialize_training(encoder, learner=step.state(), rng=sandwich.rng.bit_generator.state)
                supernet.select(sandwich.largest)
                few = evaluation.settings.interim_episodes
                values["meta-validation/largest"] = float(evaluation.accuracies(encoder, VALIDATION, few).mean())
            yield Progress(step.number, values, kept)

    def _judge(self, evaluation: Evaluation, inherited: Inherited) -> Generator[Progress, None, list[dict[str, Any]]]:
        """Rows as in the findings, in the order in which they were judged first."""
        search = self._search(evaluation)
        try:
            with inherited.sharing():
                rows = yield from self._judge_first(search, inherited)
        finally:
            search.close()
        chosen = select_best(np.array([signed_values(row, self.objectives) for row in rows]), self.again)
        with inherited.sharing():
            again = [Architecture(rows[i]["architecture"]) for i in chosen]
            for number, (i, metrics) in enumerate(split_evenly(again, inherited.second), start=1):
                rows[chosen[i]] |= {**metrics, "twice": True}
                yield self._progress(self.options.judged + number, "judged again", metrics)
        return rows

    def _judge_first(self, search: Strategy, inherited: Inherited) -> Generator[Progress, None, list[dict[str, Any]]]:
        """Rows of what the search proposes, a generation at a time."""
        rows: list[dict[str, Any]] = []
        while len(rows) < self.options.judged:
            left = min(getattr(search, "population", BATCH), self.options.judged - len(rows))
            batch = [a for _ in range(left) if isinstance(a := search.ask(), Architecture)]
            if not batch:
                break
            found = {}
            for i, metrics in split_evenly(batch, inherited.first):
                found[i] = metrics
                yield self._progress(len(rows) + len(found), "judged", metrics)
            for i, architecture in enumerate(batch):
                rows.append({"architecture": dict(architecture.values), **found[i], "twice": False})
                values = signed_values(found[i], self.objectives)
                search.tell(Outcome(architecture, "completed", found[i], values[0], values))
        return rows

    def _progress(self, number: int, what: str, metrics: Mapping[str, float]) -> Progress:
        return Progress(self.options.steps + number, {f"{what}/{name}": value for name, value in metrics.items()})

    def _search(self, evaluation: Evaluation) -> Strategy:
        """The search among sub-networks, as if each were a trial."""
        context = SearchContext(
            space=evaluation.space, objectives=self.objectives, trials=self.options.judged, workers=BATCH,
            seed=self.seed, tokens=evaluation.settings.flops_tokens,
        )  # fmt: skip
        return {"nsga2": NSGA2, "random": Random}[self.options.method](context)
