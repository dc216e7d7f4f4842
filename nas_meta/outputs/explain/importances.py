"""Which choices matter: PED-ANOVA over the trials of a run, with bootstrap intervals and a check against chance.

PED-ANOVA (Watanabe et al. 2023) compares the values of a choice among the best trials, p', with those among all trials,
p. The importance is the Pearson divergence Σ_v p(v) · (p'(v) / p(v) - 1)² of these shares, which are smoothed by one
trial that is spread over all values. For a choice that applies only under others, both are taken over the trials in
which it applies and weighted by α² / β, where α and β are the shares of these trials among the best and among all
(condPED-ANOVA, arXiv:2601.20800). These are the definitions of ``optuna.importance.PedAnovaImportanceEvaluator``, up
to a common factor; counting in arrays instead of studies makes hundreds of bootstrap samples affordable.

Example: 8 of 20 trials have ``a=1`` and 12 have ``a=0``. If all 5 best trials have ``a=1``, its importance is high; if
2 of them have, as in all trials, it is near 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_meta.core.objectives import Objective
from nas_meta.evaluation.metrics import metric_of
from nas_meta.outputs.explain.results import Results

LEAST_TRIALS = 10  # with fewer, the best trials are too few to have a pattern
BEST_SHARE, LEAST_BEST = 0.1, 5  # of the trials are the best ones; optuna's documentation recommends 5 or more
DRAWS = 200  # bootstrap samples, and as many shuffles
PRIOR = 1.0  # weight, in trials, of the uniform prior


@dataclass(frozen=True)
class Importance:
    """How much a choice matters.

    Attributes:
        choice: Name of the choice.
        share: Its share of the importance of all choices.
        low: Lower end of the share's 95% bootstrap interval over trials.
        high: Upper end.
        stands_out: Whether it is higher than shuffled results make any choice in 95 of 100 cases.
        best: The value with the best mean.
        gain: Difference of the means of its best and its worst value, at least 0, in the unit that people see.
    """

    choice: str
    share: float
    low: float
    high: float
    stands_out: bool
    best: Any
    gain: float


@dataclass(frozen=True)
class Importances:
    """How much every choice matters for one objective.

    Attributes:
        metric: The objective.
        trials: Number of trials.
        choices: The choices that differ between trials, the most important first; empty with too few trials.
        sentence: What may be concluded from them.
    """

    metric: str
    trials: int
    choices: Sequence[Importance]
    sentence: str


@dataclass(frozen=True)
class _Column:
    """The values of one choice: ``codes[t]`` is an index into ``values``, -1 where the choice does not apply."""

    name: str
    values: Sequence[Any]
    codes: np.ndarray


def importances(
    results: Results, objectives: Sequence[Objective], draws: int = DRAWS, seed: int = 0
) -> list[Importances]:
    """Compute how much every choice matters for every objective.

    Args:
        results: Comparable results.
        objectives: The objectives.
        draws: Number of bootstrap samples, and of shuffles.
        seed: Seed of both.

    Returns:
        One result per objective, in their order.
    """
    columns = [column for column in _columns(results.architectures) if len(column.values) > 1]
    return [
        _for_objective(results, columns, objective, -results.values[:, i], draws, seed)
        for i, objective in enumerate(objectives)
    ]


def divergences(columns: Sequence[tuple[np.ndarray, int]], losses: np.ndarray, best_share: float) -> np.ndarray:
    """Compute the PED-ANOVA importances of choices, up to a common factor.

    Args:
        columns: For each choice, ``[trials]`` indices of its value, -1 where it does not apply, and the number of its
            values.
        losses: ``[trials]``, lower is better.
        best_share: Share of the trials that are the best ones.

    Returns:
        ``[choices]``.
    """
    cut = math.ceil(best_share * len(losses)) - 1
    best = losses <= np.partition(losses, cut)[cut]
    return np.array([_divergence(codes, size, best) for codes, size in columns])


def _divergence(codes: np.ndarray, size: int, best: np.ndarray) -> float:
    applies = codes >= 0
    everywhere, among_best = codes[applies], codes[applies & best]
    if len(among_best) == 0 or len(everywhere) < 2:
        return 0.0
    density, density_best = _density(everywhere, size), _density(among_best, size)
    share, share_best = len(everywhere) / len(codes), len(among_best) / int(best.sum())
    return share_best**2 / share * float(density @ (density_best / density - 1) ** 2)


def _density(codes: np.ndarray, size: int) -> np.ndarray:
    """Return the smoothed shares of values, as optuna's Parzen estimator of a categorical choice computes them.

    Every value that occurs is a kernel, weighted by its number. It gives 1 + a of 1 + a · size to its own value and a
    to the others, where a is 1 / (kernels + 1); the prior is a uniform kernel.
    """
    counts = np.bincount(codes, minlength=size)
    a = PRIOR / ((counts > 0).sum() + 1)
    kernels = (counts + a * counts.sum()) / (1 + a * size)
    return (kernels + PRIOR / size) / (counts.sum() + PRIOR)


def _for_objective(
    results: Results, columns: Sequence[_Column], objective: Objective, losses: np.ndarray, draws: int, seed: int
) -> Importances:
    """Compute the importances for one objective."""
    metric, n = metric_of(objective.metric), len(results)
    if n < LEAST_TRIALS or not columns:
        why = f"; expected at least {LEAST_TRIALS}" if n < LEAST_TRIALS else ", whose choices are all the same"
        return Importances(metric.name, n, (), f"Which choices matter cannot be seen from {results.named}{why}.")
    share = max(BEST_SHARE, min(LEAST_BEST / n, 0.5))
    coded = [(column.codes, len(column.values)) for column in columns]
    rng = np.random.default_rng(seed)
    raw = divergences(coded, losses, share)
    samples, chance = np.empty((draws, len(columns))), np.empty(draws)
    for i in range(draws):
        rows = rng.integers(n, size=n)
        samples[i] = _shares(divergences([(codes[rows], size) for codes, size in coded], losses[rows], share))
        chance[i] = divergences(coded, rng.permutation(losses), share).max()
    limit, shares = np.quantile(chance, 0.95), _shares(raw)
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    found = []
    for i in np.argsort(-raw, kind="stable"):
        best, gain = _best_value(columns[i], losses)
        found.append(Importance(
            columns[i].name, float(shares[i]), float(min(low[i], shares[i])), float(max(high[i], shares[i])),
            bool(raw[i] > limit), best, float(gain * metric.scale),
        ))  # fmt: skip
    return Importances(metric.name, n, found, _sentence(found, results.named, metric.title))


def _sentence(found: Sequence[Importance], named: str, title: str) -> str:
    """Return what may be concluded from importances."""
    out = [f.choice for f in found if f.stands_out]
    if not out:
        return f"No choice stands out for {title}: with {named}, shuffled results give importances as high as these."
    listed = ", ".join(out[:5]) + (f" and {len(out) - 5} more" if len(out) > 5 else "")
    sentence = f"{listed} {'matters' if len(out) == 1 else 'matter'} for {title} more than chance explains."
    if len(found) > 1 and max(f.low for f in found) <= min(f.high for f in found):
        return f"{sentence} The intervals of all choices overlap, so that their order is uncertain."
    return sentence


def _shares(raw: np.ndarray) -> np.ndarray:
    total = raw.sum()
    return raw / total if total > 0 else np.full(len(raw), 1 / len(raw))


def _best_value(column: _Column, losses: np.ndarray) -> tuple[Any, float]:
    """Return the value with the lowest mean loss, and by how much the worst value exceeds it."""
    means = [losses[column.codes == i].mean() for i in range(len(column.values))]
    return column.values[int(np.argmin(means))], max(means) - min(means)


def _columns(architectures: Sequence[Mapping[str, Any]]) -> list[_Column]:
    """Return the choices of architectures; values are equal only if their types are, because True equals 1."""
    columns = []
    for name in dict.fromkeys(name for architecture in architectures for name in architecture):
        index: dict[tuple[str, Any], int] = {}
        codes = np.full(len(architectures), -1)
        for row, architecture in enumerate(architectures):
            if name in architecture:
                key = type(architecture[name]).__name__, architecture[name]
                codes[row] = index.setdefault(key, len(index))
        columns.append(_Column(name, [value for _, value in index], codes))
    return columns


def as_dict(result: Importances) -> Mapping[str, Any]:
    """Return importances as plain data.

    Args:
        result: The importances for one objective.
    """
    return {**vars(result), "choices": [dict(vars(row)) for row in result.choices]}
