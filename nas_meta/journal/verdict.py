"""What a search was worth, in sentences: its winner against what the user had, and against the obvious alternatives.

All models are tested on the same episodes, so that differences are paired: the interval is that of the mean difference
per episode, which is much smaller than the difference of two intervals. Only a difference whose interval excludes 0
counts as better or worse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_meta.journal.compared_models import UNADAPTED, UNTOUCHED, UNTRAINED, untouched_key
from nas_meta.journal.records import Trial

SAME = 0.005  # relative difference of two sizes that counts as none


@dataclass(frozen=True)
class Row:
    """A meta-tested model.

    Attributes:
        name: Its name in a sentence.
        right: Numbers of correct queries per episode.
        flops: Floating-point operations for one example; 0 for a baseline without a model.
        params: Parameters; 0 for a baseline without a model.
    """

    name: str
    right: Sequence[int]
    flops: float = 0.0
    params: float = 0.0


@dataclass(frozen=True)
class Difference:
    """The paired difference of two models over the same episodes, in points of accuracy.

    Attributes:
        mean: Mean over the episodes; positive if the first model is better.
        half: Half the width of its 95% interval.
    """

    mean: float
    half: float

    @property
    def sign(self) -> int:
        """1 if the first model is better, -1 if it is worse, and 0 if the interval includes 0."""
        return 0 if abs(self.mean) <= self.half or self.mean == 0 else 1 if self.mean > 0 else -1

    def __str__(self) -> str:
        """The difference in words, such as ``1.7 points better (0.9 to 2.5)``."""
        low, high = abs(self.mean) - self.half, abs(self.mean) + self.half
        return f"{abs(self.mean):.1f} points {'better' if self.mean > 0 else 'worse'} ({low:.1f} to {high:.1f})"


def paired_difference(first: Sequence[int], second: Sequence[int], queries: int) -> Difference | None:
    """Return the paired difference of two models.

    Args:
        first: ``[episodes]``, correct queries of the first model per episode.
        second: ``[episodes]``, those of the second one in the same episodes.
        queries: Queries per episode.

    Returns:
        The mean difference d with 1.96 · s / √n, where s is the sample standard deviation of the differences per
        episode; None if the models were not tested on the same two or more episodes.
    """
    if len(first) != len(second) or len(first) < 2 or queries < 1:
        return None
    points = 100 * (np.asarray(first, dtype=float) - np.asarray(second, dtype=float)) / queries
    return Difference(float(points.mean()), float(1.96 * points.std(ddof=1) / math.sqrt(len(points))))


def verdict(winner: Row, untouched: Row | None, trained: Sequence[Row], baselines: Sequence[Row], queries: int) -> str:
    """Return what the winner of a search is worth.

    Args:
        winner: The best trial.
        untouched: The model that the user began with; None compares with the best baseline instead.
        trained: Models that were trained like the winner.
        baselines: Baselines without a model.
        queries: Queries per episode.

    Returns:
        One to three sentences; empty if there is nothing to compare with.
    """
    start = untouched or max(baselines, key=_correct, default=None)
    gain = start and paired_difference(winner.right, start.right, queries)
    if start is None or gain is None:
        return ""
    size = _size(winner, start) if start.flops and start.params else ""
    smaller = bool(size) and (_change(winner.flops, start.flops) < 0 or _change(winner.params, start.params) < 0)
    facts = f"{_capital(winner.name)}: {size}{', and ' if size else ''}{_accuracy(gain)} {start.name}."
    others = [row for row in (*trained, *baselines) if row is not start]
    if gain.sign < 0 or (gain.sign == 0 and not smaller):
        better = [(row, d) for row, d in _paired(others, start, queries) if d.sign > 0]
        take, lead = max(better, key=lambda pair: _correct(pair[0]), default=(start, None))
        why = f", {lead} than {start.name}" if lead else ""
        unless = ", unless the smaller size matters more to you than the accuracy" if smaller else ""
        return f"Nothing to gain. {facts} Take {take.name} instead{why}{unless}."
    ahead = [(row, d) for row, d in _paired(others, winner, queries) if d.sign > 0]
    if cheap := [(row, d) for row, d in ahead if _change(row.flops, winner.flops) <= 0]:
        take, lead = max(cheap, key=lambda pair: _correct(pair[0]))
        return f"Nothing to gain. {facts} Take {take.name} instead, {lead} than {winner.name} without more compute."
    clauses = [_clause(d, row.name) for row in trained if (d := paired_difference(winner.right, row.right, queries))]
    return f"{facts} It is {', and '.join(clauses)}." if clauses else facts


def verdict_of(report: Mapping[str, Any], trial: Trial) -> str:
    """Return what a trial is worth, from the report of its run.

    Args:
        report: The report; see :attr:`nas_meta.journal.run.Run.report`.
        trial: The trial.

    Returns:
        One to three sentences; empty if the trial was not meta-tested, or by a version that kept no episodes.
    """
    right, references = report.get("right", {}), report.get("references", {})

    def row(kind: str, key: str, name: str) -> Row | None:
        """Return a row that was tested with its episodes; else None."""
        metrics, answers = report.get(kind, {}).get(key), right.get(kind, {}).get(key)
        if not metrics or not answers:
            return None
        return Row(name, tuple(answers), metrics.get("flops", 0.0), metrics.get("params", 0.0))

    winner = row("trials", str(trial.id), _name(trial))
    if winner is None:
        return ""
    untouched = row("references", untouched_key(report), UNTOUCHED)
    names = report.get("comparisons", {}) if report.get("compared") == trial.id else {}
    trained = [r for name in names if (r := row("comparisons", name, name))]
    others = [name for name in references if name not in (UNADAPTED, UNTRAINED)]
    baselines = [r for name in others if (r := row("references", name, name))]
    return verdict(winner, untouched, trained, baselines, report.get("queries", 0))


def _name(trial: Trial) -> str:
    """Return the name of a trial, with its number of layers if its choices say which layers are kept."""
    kept = [bool(v) for name, v in trial.architecture.items() if re.fullmatch(r"layer\d+\.keep", name)]
    return f"trial {trial.id}" + (f" ({_counted(sum(kept))} of {len(kept)})" if kept else "")


def _counted(layers: int) -> str:
    return "1 layer" if layers == 1 else f"{layers} layers"


def _change(size: float, before: float) -> float:
    """Return the relative change of a size; 0 if it is negligible."""
    change = (size - before) / before if before else float(size > 0)
    return 0.0 if abs(change) < SAME else change


def _size(row: Row, before: Row) -> str:
    """Return the compute and the parameters of a model against another, such as ``33 % less compute``."""
    parts = []
    for change, noun, (more, less) in (
        (_change(row.flops, before.flops), "compute", ("more", "less")),
        (_change(row.params, before.params), "parameters", ("more", "fewer")),
    ):
        if change:
            parts.append(f"{max(1, round(100 * abs(change)))} % {more if change > 0 else less} {noun}")
    return " and ".join(parts) or "the same size"


def _accuracy(gain: Difference) -> str:
    """Return the part of a sentence about the accuracy of the winner, up to the name of what it is compared with."""
    if gain.sign:
        return f"{str(gain).replace('(', '(95 % interval ')} than"
    low, high = gain.mean - gain.half, gain.mean + gain.half
    return f"no difference that these episodes can show (95 % interval {low:+.1f} to {high:+.1f} points) from"


def _paired(rows: Sequence[Row], other: Row, queries: int) -> list[tuple[Row, Difference]]:
    """Return the differences of rows from another one, of those that were tested on the same episodes."""
    return [(row, d) for row in rows if (d := paired_difference(row.right, other.right, queries))]


def _correct(row: Row) -> int:
    return sum(row.right)


def _clause(difference: Difference, name: str) -> str:
    """Return a part of a sentence about the winner against another model."""
    return f"{difference} than {name}" if difference.sign else f"not distinguishable from {name} on these episodes"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
