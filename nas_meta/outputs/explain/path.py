"""Why this architecture: the way from an obvious architecture to the winner, one choice at a time, and its rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from nas_meta.evaluation.metrics import Metric, metric_of
from nas_meta.journal.database import Journal
from nas_meta.journal.row_checks import TrainedComparison, validated
from nas_meta.journal.run import Run, rank
from nas_meta.journal.verdict import paired_difference
from nas_meta.outputs.explain.predictor import LEAST, Predictor
from nas_meta.outputs.explain.results import Results

FIRST = "the first"  # how the name of a truncation begins
COMPARISONS = "comparisons"  # key of the journal
RIVALS = 3
MISSING = "(does not apply)"
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One choice that changes, with the choices that begin or cease to apply because of it.

    Attributes:
        changes: Value before and after, by choice; :data:`MISSING` where a choice does not apply.
        value: The first objective after the change, in the unit that people see; None if it cannot be predicted.
        measured: Whether a trial has this architecture; otherwise the value is predicted.
        gain: Difference to the value before, positive where the change helps; None if one of them is unknown.
        gain_measured: Whether both values are measured.
    """

    changes: Mapping[str, tuple[Any, Any]]
    value: float | None
    measured: bool
    gain: float | None
    gain_measured: bool


@dataclass(frozen=True)
class Rival:
    """A trial that ranks right behind the winner.

    Attributes:
        trial: Its ID.
        gap: By how much it is worse in the first objective, in the unit that people see.
        differs: Value of the winner and of the rival, by choice that differs.
        test: Their paired difference on the meta-test episodes in words; empty if it was not tested.
    """

    trial: int
    gap: float
    differs: Mapping[str, tuple[Any, Any]]
    test: str


@dataclass(frozen=True)
class Path:
    """The way from a start to the winner.

    Attributes:
        start: Name of the start, such as ``the first 4 layers trained alike``.
        winner: ID of the best trial.
        metric: The first objective.
        unit: Unit of the values.
        results: What the values are measured on, in words.
        start_value: The value of the start; None if it cannot be predicted.
        start_measured: Whether a trial has the start's architecture.
        steps: The changes, the one with the largest gain first.
        error: Mean absolute error of the predictions on results that they were not fitted to; None without predictions.
        rivals: The trials behind the winner.
        sentence: How far the steps can be trusted.
    """

    start: str
    winner: int
    metric: str
    unit: str
    results: str
    start_value: float | None
    start_measured: bool
    steps: Sequence[Step]
    error: float | None
    rivals: Sequence[Rival]
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return the path as plain data."""
        return asdict(self)


def path_to_winner(run: Run, results: Results) -> Path | None:
    """Explain the best trial of a run.

    Args:
        run: The run; nothing in it is executed, so that constraints of the search space are not known: an architecture
            on the way may be outside of the space.
        results: Its comparable results.

    Returns:
        The path and the rivals; None if no trial is completed.
    """
    ranked = rank(run.trials, run.objectives)
    if not ranked:
        return None
    winner, objective = ranked[0], run.objectives[0]
    metric = metric_of(objective.metric)
    name, start = _start(run, winner.architecture)
    values = _Known(results, objective.sign, metric)
    units = _units(start, winner.architecture, [*results.architectures, start, winner.architecture])
    start_value, start_measured = values.of([start])[0]
    steps = _steps(dict(start), units, values, start_value, start_measured, objective.sign)
    rivals = []
    for trial in ranked[1 : 1 + RIVALS]:
        gap = objective.sign * metric.scale * (winner.metrics[metric.name] - trial.metrics[metric.name])
        differs = differences(winner.architecture, trial.architecture)
        rivals.append(Rival(trial.id, float(gap), differs, _tested(run, winner.id, trial.id)))
    predicted = not start_measured or any(not step.measured for step in steps)
    return Path(
        name, winner.id, metric.name, metric.unit, results.named, start_value, start_measured, steps,
        values.error if predicted else None, rivals, _sentence(name, steps, values, predicted, metric),
    )  # fmt: skip


def differences(one: Values, other: Values) -> dict[str, tuple[Any, Any]]:
    """Return the choices in which two architectures differ, each with both values.

    Args:
        one: Values by choice.
        other: The same of the other architecture.

    Returns:
        Pairs of values by choice; :data:`MISSING` stands for a choice that does not apply.
    """
    pairs = {n: (one.get(n, MISSING), other.get(n, MISSING)) for n in dict.fromkeys([*one, *other])}
    return {n: (a, b) for n, (a, b) in pairs.items() if a != b or isinstance(a, bool) != isinstance(b, bool)}


class _Known:
    """Values of architectures: measured where a result has the architecture, otherwise predicted."""

    def __init__(self, results: Results, sign: int, metric: Metric):
        shown = sign * metric.scale * results.values[:, 0] if len(results) else np.zeros(0)
        measured = dict[Any, list[float]]()
        for architecture, value in zip(results.architectures, shown.tolist(), strict=True):
            measured.setdefault(_key(architecture), []).append(value)
        self._measured = {key: float(np.mean(found)) for key, found in measured.items()}
        enough = len(results) >= LEAST
        self._predictor = Predictor(results.architectures, shown) if enough else None
        self.error = self._predictor.error if self._predictor else None

    def of(self, architectures: Sequence[Values]) -> list[tuple[float | None, bool]]:
        """Return the value of each architecture, and whether it is measured."""
        predicted = self._predictor.predict(architectures).tolist() if self._predictor else [None] * len(architectures)
        found = []
        for architecture, guess in zip(architectures, predicted, strict=True):
            value = self._measured.get(_key(architecture))
            found.append((guess, False) if value is None else (value, True))
        return found


def _key(architecture: Values) -> Any:
    return frozenset((name, type(value).__name__, value) for name, value in architecture.items())


def _start(run: Run, winner: Values) -> tuple[str, Values]:
    """Return where the path begins: a model that was trained to compare the winner with, or else the first trial."""
    recorded = Journal.open(run.directory).get(COMPARISONS, [])
    rows = validated(list[TrainedComparison], recorded, COMPARISONS) if run.report.get("comparisons") else []
    rows = [row for row in rows if row["name"] in run.report["comparisons"]]
    for row in sorted(rows, key=lambda row: not row["name"].startswith(FIRST)):
        if differences(row["architecture"], winner):
            return row["name"], row["architecture"]
    first = min(rank(run.trials, run.objectives), key=lambda t: t.id)
    return f"trial {first.id}, the first that was completed", first.architecture


def _units(start: Values, end: Values, seen: Sequence[Values]) -> list[dict[str, tuple[Any, Any]]]:
    """Group the choices that differ: a choice that begins or ceases to apply belongs to the one that decides that.

    A journal does not record conditions. The choice that decides is the one whose value tells, in every architecture
    seen, whether the other applies; of several the one whose name begins most alike.
    """
    differing = differences(start, end)
    roots = {n: {n: pair} for n, pair in differing.items() if MISSING not in pair}
    lone = dict[str, dict[str, tuple[Any, Any]]]()
    for name, pair in differing.items():
        if MISSING in pair:
            parents = [p for p in roots if _decides(p, name, seen)]
            parent = max(parents, key=partial(_alike, name), default=None)
            (lone.setdefault(name, {}) if parent is None else roots[parent])[name] = pair
    return [*roots.values(), *lone.values()]


def _alike(one: str, other: str) -> int:
    """Return the number of characters with which two names begin alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _decides(parent: str, name: str, seen: Sequence[Values]) -> bool:
    applies = dict[Any, bool]()
    for architecture in seen:
        value = architecture.get(parent, MISSING)
        if applies.setdefault((type(value).__name__, value), name in architecture) != (name in architecture):
            return False
    return True


def _steps(
    current: dict[str, Any], units: list[dict[str, tuple[Any, Any]]], values: _Known, value: float | None,
    measured: bool, sign: int,
) -> list[Step]:  # fmt: skip
    """Take the change with the best value first, then the best of the others, and so on."""
    steps = []
    while units:
        options = [_changed(current, unit) for unit in units]
        found = values.of(options)
        best = max(range(len(units)), key=lambda i: sign * (found[i][0] or 0.0))
        after, known = found[best]
        gain = None if after is None or value is None else sign * (after - value)
        steps.append(Step(units[best], after, known, gain, known and measured and gain is not None))
        current, value, measured = options[best], after, known
        units = units[:best] + units[best + 1 :]
    return steps


def _changed(architecture: Values, unit: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    changed = {name: value for name, value in architecture.items() if name not in unit}
    return changed | {name: after for name, (_, after) in unit.items() if after != MISSING}


def _tested(run: Run, winner: int, rival: int) -> str:
    """Return the paired difference of the winner and a rival on the meta-test episodes, in words."""
    right = run.report.get("right", {}).get("trials", {})
    difference = paired_difference(right.get(str(winner), ()), right.get(str(rival), ()), run.report.get("queries", 0))
    if difference is None:
        return ""
    return str(difference) if difference.sign else "not distinguishable"


def _sentence(start: str, steps: Sequence[Step], values: _Known, predicted: bool, metric: Metric) -> str:
    """Return how far the steps can be trusted."""
    if not steps:
        return f"The winner is {start}."
    if not predicted:
        return "Every step is measured."
    if values.error is None:
        return f"Steps that no trial has measured are not predicted: that takes {LEAST} results or more."
    error = f"{values.error:.1f} {'points' if metric.unit == '%' else metric.unit}".strip()
    return (
        f"Steps that no trial has measured are predicted by a regression on the choices, which is off by {error} on "
        "average; smaller gains mean nothing."
    )
