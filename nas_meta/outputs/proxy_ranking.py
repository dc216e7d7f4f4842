"""Rank architectures by zero-cost proxies: random architectures of a config, or the trials of a run.

For a run, Kendall's τ measures how well the ranking by each proxy agrees with the ranking by trained accuracy.
"""

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
from nas_meta.outputs.changes import warn_of_changes
from nas_meta.space.architecture import Architecture

RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of two rankings of the same architectures.

    Attributes:
        tau: Kendall's τ, from -1 (reversed) to 1 (identical).
        low: Lower end of its 95% interval over bootstrap samples of the architectures.
        high: Upper end of that interval.
    """

    tau: float
    low: float
    high: float


@dataclass(frozen=True)
class RankedArchitecture:
    """An architecture and its proxy scores.

    Attributes:
        architecture: The architecture.
        scores: Scores by the name of the proxy; higher is better.
        trial: ID of the trial in the run; None for a random architecture.
        accuracy: Meta-validation accuracy of the trial after training; None for a random architecture.
    """

    architecture: Architecture
    scores: dict[str, float]
    trial: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Architectures in the order of their scores.

    Attributes:
        rows: Architectures, best first by the first proxy.
        agreement: For the trials of a run, agreement with the trained accuracy by proxy; otherwise empty.
    """

    rows: Sequence[RankedArchitecture]
    agreement: dict[str, Agreement] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the ranking as plain data, as ``--json`` prints it."""
        rows = [
            {"id": r.architecture.id, "architecture": dict(r.architecture.values), "scores": r.scores}
            | ({} if r.trial is None else {"trial": r.trial, "accuracy": r.accuracy})
            for r in self.rows
        ]
        return {"architectures": rows, "agreement": {name: asdict(value) for name, value in self.agreement.items()}}


def rank_random(
    config: ResolvedConfig, names: Sequence[str], count: int, watch: Callable[[int], None] = lambda done: None
) -> Ranking:
    """Rank random architectures of a config.

    Args:
        config: The config; its seed determines the architectures.
        names: Proxies to compute, as :func:`parse_proxies` returns them; the first one ranks.
        count: Number of distinct architectures; a smaller space gives fewer.
        watch: Called with the number of scored architectures after each one.

    Returns:
        The ranking.

    Raises:
        NasMetaError: An architecture cannot be built or scored.
    """
    evaluation = load_evaluation(config)
    space, rng, sampled = evaluation.space, np.random.default_rng(config.sections.seed), {}
    for _ in range(100 * count):
        architecture = space.sample(rng)
        sampled[architecture.id] = architecture
        if len(sampled) >= min(count, space.size()):
            break
    rows = []
    for done, architecture in enumerate(sampled.values(), start=1):
        scores = proxy_scores_of(evaluation, architecture, names, config.sections.seed)
        rows.append(RankedArchitecture(architecture, scores))
        watch(done)
    return Ranking(sort_by_score(rows, names))


def rank_run(run: Run, names: Sequence[str], watch: Callable[[int], None] = lambda done: None) -> Ranking:
    """Rank the completed trials of a run by their scores before training.

    Args:
        run: The run.
        names: Proxies to compute, as :func:`parse_proxies` returns them; the first one ranks.
        watch: Called with the number of scored trials after each one.

    Returns:
        The ranking, with the agreement of each proxy with the trained accuracy.

    Raises:
        RunError: Fewer than two trials are completed.
        NasMetaError: A trial's architecture cannot be built or scored.
    """
    trials = [t for t in run.trials if t.status == "completed"]
    if len(trials) < 2:
        raise RunError(f"{run.directory} has {len(trials)} completed trials; expected two or more to rank")
    evaluation, rows = load_evaluation(run.config), []
    warn_of_changes(run, evaluation.tasks)
    for done, trial in enumerate(trials, start=1):
        architecture = Architecture(trial.architecture)
        scores = proxy_scores_of(evaluation, architecture, names, trial.seed)
        rows.append(RankedArchitecture(architecture, scores, trial.id, trial.metrics["accuracy"]))
        watch(done)
    accuracies = [row.accuracy for row in rows]
    agreements = {name: agreement([row.scores[name] for row in rows], accuracies) for name in names}
    return Ranking(sort_by_score(rows, names), agreements)


def load_evaluation(config: ResolvedConfig) -> Evaluation:
    """Return the evaluation of a config, with the space prepared and the tasks loaded as for a search.

    Args:
        config: The config.
    """
    space, tasks, shape = load_problem(config)
    return make_evaluation(on_this_machine(config), space, tasks, shape, 1, trains=False)


def proxy_scores_of(
    evaluation: Evaluation, architecture: Architecture, names: Sequence[str], seed: int
) -> dict[str, float]:
    """Return the proxy scores of one architecture.

    Args:
        evaluation: The evaluation, as :func:`load_evaluation` returns it.
        architecture: The architecture.
        names: Proxies to compute.
        seed: Seed of the weights and of the episodes that the proxies use.

    Returns:
        Scores by proxy.

    Raises:
        NasMetaError: The architecture cannot be built or scored.
    """
    from nas_meta.evaluation.proxies.scoring import proxy_scores

    try:
        with plugin_call(evaluation.space, "build"):
            return proxy_scores(evaluation, architecture, names, seed)
    except NasMetaError as error:
        raise NasMetaError(f"the architecture {architecture} cannot be scored: {error}") from error


def parse_proxies(text: str | None) -> list[str]:
    """Parse the value of ``--scores``.

    Args:
        text: Names separated by commas; None stands for all proxies.

    Returns:
        The names, each once, in the given order.

    Raises:
        ConfigError: A name is not a proxy.
    """
    names = [name.strip() for name in text.split(",")] if text is not None else list(PROXIES)
    for name in names:
        if name not in PROXIES:
            raise ConfigError(f"--scores: '{name}' is not a zero-cost proxy; {nearest(name, PROXIES)}")
    return list(dict.fromkeys(names))


def sort_by_score(rows: Sequence[RankedArchitecture], names: Sequence[str]) -> list[RankedArchitecture]:
    """Sort architectures by the first of some proxies, best first.

    Args:
        rows: The architectures.
        names: Proxies.

    Returns:
        The architectures; equal scores keep their order.
    """
    return sorted(rows, key=lambda row: -row.scores[names[0]])


def agreement(one: Sequence[float], other: Sequence[float], seed: int = 0) -> Agreement:
    """Compute Kendall's τ-b and its bootstrap interval.

    The interval reaches from the 2.5th to the 97.5th percentile of τ-b on ``RESAMPLES`` bootstrap samples of the
    pairs. Where one side is constant, τ-b is undefined and counts as 0.

    Args:
        one: ``[N]`` values of the first ranking.
        other: ``[N]`` values of the second ranking, of the same items.
        seed: Seed of the bootstrap samples.

    Returns:
        The agreement.
    """
    from scipy.stats import kendalltau

    a, b, rng = np.asarray(one), np.asarray(other), np.random.default_rng(seed)
    samples = [rng.integers(len(a), size=len(a)) for _ in range(RESAMPLES)]
    taus = np.nan_to_num([kendalltau(a[rows], b[rows])[0] for rows in samples])
    low, high = np.percentile(taus, [2.5, 97.5])
    return Agreement(float(np.nan_to_num(kendalltau(a, b)[0])), float(low), float(high))
