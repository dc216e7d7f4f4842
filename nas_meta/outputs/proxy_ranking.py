"""Architectures ranked by zero-cost scores: random ones of a config, or a run's, with how well the scores agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nas_meta.config.components import make_evaluation
from nas_meta.config.gpu_sharing import on_this_machine
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.guard import plugin_call
from nas_meta.errors import ConfigError, NasMetaError, RunError, nearest
from nas_meta.evaluation.proxies import PROXIES
from nas_meta.evaluation.trial import Evaluation
from nas_meta.journal.run import Run
from nas_meta.space.architecture import Architecture

RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """Kendall's τ of two rankings, and its 95% interval over bootstrap samples of what is ranked."""

    tau: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranked:
    """An architecture with its scores by name; of a run's trial also its id and its trained accuracy."""

    architecture: Architecture
    scores: dict[str, float]
    trial: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Architectures, best first by the first score; of a run, how the scores agree with the trained accuracy."""

    rows: Sequence[Ranked]
    agreement: dict[str, Agreement] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        rows = [
            {"id": r.architecture.id, "architecture": dict(r.architecture.values), "scores": r.scores}
            | ({} if r.trial is None else {"trial": r.trial, "accuracy": r.accuracy})
            for r in self.rows
        ]
        return {"architectures": rows, "agreement": {name: asdict(found) for name, found in self.agreement.items()}}


def rank_random(
    config: ResolvedConfig, names: Sequence[str], count: int, watch: Callable[[int], None] = lambda done: None
) -> Ranking:
    """Scores ``count`` random architectures, fewer where the space has no more; see :func:`scores_named`.

    Raises:
        NasMetaError: one of them cannot be built or scored.
    """
    evaluation = prepared(config)
    space, rng, found = evaluation.space, np.random.default_rng(config.sections.seed), {}
    for _ in range(100 * count):
        architecture = space.sample(rng)
        found[architecture.id] = architecture
        if len(found) >= min(count, space.size()):
            break
    rows = []
    for done, architecture in enumerate(found.values(), start=1):
        rows.append(Ranked(architecture, scores_of(evaluation, architecture, names, config.sections.seed)))
        watch(done)
    return Ranking(ordered(rows, names))


def rank_run(run: Run, names: Sequence[str], watch: Callable[[int], None] = lambda done: None) -> Ranking:
    """Scores the completed trials of a run as they were before training; see :func:`scores_named`.

    Raises:
        RunError: fewer than two trials are completed.
    """
    trials = [t for t in run.trials if t.status == "completed"]
    if len(trials) < 2:
        raise RunError(f"{run.directory} has {len(trials)} completed trials; expected two or more to rank")
    evaluation, rows = prepared(run.config), []
    for done, trial in enumerate(trials, start=1):
        architecture = Architecture(trial.architecture)
        scores = scores_of(evaluation, architecture, names, trial.seed)
        rows.append(Ranked(architecture, scores, trial.id, trial.metrics["accuracy"]))
        watch(done)
    accuracies = [row.accuracy for row in rows]
    return Ranking(ordered(rows, names), {n: agreement([r.scores[n] for r in rows], accuracies) for n in names})


def prepared(config: ResolvedConfig) -> Evaluation:
    """The evaluation of a config, its space prepared as for a search."""
    space, tasks, shape = load_problem(config)
    return make_evaluation(on_this_machine(config), space, tasks, shape, 1)


def scores_of(evaluation: Evaluation, architecture: Architecture, names: Sequence[str], seed: int) -> dict[str, float]:
    """The scores of one architecture.

    Raises:
        NasMetaError: it cannot be built or scored.
    """
    from nas_meta.evaluation.proxies.scoring import proxy_scores

    try:
        with plugin_call(evaluation.space, "build"):
            return proxy_scores(evaluation, architecture, names, seed)
    except NasMetaError as error:
        raise NasMetaError(f"the architecture {architecture} cannot be scored: {error}") from error


def scores_named(given: str | None) -> list[str]:
    """The scores that ``--scores a,b`` names; by default all.

    Raises:
        ConfigError: there is no such score.
    """
    names = [name.strip() for name in given.split(",")] if given is not None else list(PROXIES)
    for name in names:
        if name not in PROXIES:
            raise ConfigError(f"--scores: there is no score '{name}'; {nearest(name, PROXIES)}")
    return list(dict.fromkeys(names))


def ordered(rows: Sequence[Ranked], names: Sequence[str]) -> list[Ranked]:
    """Best first by the first score."""
    return sorted(rows, key=lambda row: -row.scores[names[0]])


def agreement(one: Sequence[float], other: Sequence[float], seed: int = 0) -> Agreement:
    """Kendall's τ-b, and the 2.5th and 97.5th percentile of its value on resamples; 0 where one side is constant."""
    from scipy.stats import kendalltau

    a, b, rng = np.asarray(one), np.asarray(other), np.random.default_rng(seed)
    draws = [rng.integers(len(a), size=len(a)) for _ in range(RESAMPLES)]
    taus = np.nan_to_num([kendalltau(a[rows], b[rows])[0] for rows in draws])
    low, high = np.percentile(taus, [2.5, 97.5])
    return Agreement(float(np.nan_to_num(kendalltau(a, b)[0])), float(low), float(high))
