"""Select an ensemble of kept trials on one half of the episodes, and compare it with single trials on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nas_meta.errors import ConfigError
from nas_meta.evaluation.calibrate import calibration_error
from nas_meta.evaluation.ensemble import SMALLEST, Budget, accuracies, average, select
from nas_meta.models.profiling import interval95
from nas_meta.outputs.ensemble.scoring import FEWEST, Candidates

SIZE = 5  # distinct members, by default
NEAR = 0.8  # of the ensemble's latency; a slower single trial has about the same


@dataclass(frozen=True)
class Row:
    """One trial, or the ensemble, on the judging half.

    Attributes:
        title: What it is.
        trials: IDs of its trials.
        accuracy: Mean accuracy over episodes, from 0 to 1.
        interval: Half the width of its 95% interval.
        difference: Accuracy minus that of the best single trial.
        difference_interval: Half the width of the 95% interval of the difference, paired over episodes.
        calibration_error: Expected calibration error, from 0 to 1.
        latency: Seconds; the sum over distinct members.
        params: Number of parameters; the sum over distinct members.
    """

    title: str
    trials: list[int]
    accuracy: float
    interval: float
    difference: float
    difference_interval: float
    calibration_error: float
    latency: float
    params: int


@dataclass(frozen=True)
class Judged:
    """An ensemble and what it is worth.

    Attributes:
        members: Positions of its members among the candidates.
        weights: How often each was selected.
        rows: The best single trial, the ensemble, and the single trial of about the ensemble's latency.
        same_latency: What to know about the last row.
        episodes: Number of episodes of the judging half.
        unit: ``episodes``, or in words what else accuracies are means over.
    """

    members: list[int]
    weights: list[int]
    rows: list[Row]
    same_latency: str
    episodes: int
    unit: str = "episodes"

    @property
    def is_better(self) -> bool:
        """Whether the paired 95% interval of the difference from the best single trial lies above zero."""
        row = self.rows[1]
        return len(self.members) >= FEWEST and row.difference - row.difference_interval > 0

    @property
    def verdict(self) -> str:
        """What the ensemble is worth, in one sentence."""
        best, row = self.rows[0], self.rows[1]
        single = f"trial {best.trials[0]}"
        if len(self.members) < FEWEST:
            return f"no ensemble is better than {single}: the selection chose trial {row.trials[0]} alone"
        numbers = (
            f"trials {listed(row.trials)} together reach {100 * row.accuracy:.1f} %, {single} alone "
            f"{100 * best.accuracy:.1f} %, a difference of {100 * row.difference:+.1f} ± "
            f"{100 * row.difference_interval:.1f} points (95% interval, paired over {self.episodes} meta-validation "
            f"{self.unit} that the selection did not use)"
        )
        return f"{'the ensemble is better' if self.is_better else f'no ensemble is better than {single}'}: {numbers}"

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data, as ``--json`` prints it."""
        return {
            "better": self.is_better, "verdict": self.verdict, "weights": self.weights,
            "rows": [vars(row) for row in self.rows], "same_latency": self.same_latency, "episodes": self.episodes,
        }  # fmt: skip


def judge(candidates: Candidates, size: int, max_latency: float | None, seed: int) -> Judged:
    """Select an ensemble and compare it with the best single trial and with one of its own latency.

    The best single trial is the most accurate one over all episodes, as in the search. Half of them judge it here, so
    the comparison favours it slightly.

    Args:
        candidates: The scored trials.
        size: Largest number of distinct members.
        max_latency: Largest sum of their latencies in seconds, which single trials must meet, too; None is no limit.
        seed: Seed of the selection.

    Returns:
        The comparison.

    Raises:
        ConfigError: No trial is fast enough.
    """
    latencies = np.array(candidates.latencies)
    allowed = np.flatnonzero(latencies <= (math.inf if max_latency is None else max_latency))
    if not len(allowed):
        fastest = int(latencies.argmin())
        raise ConfigError(
            f"--max-latency {max_latency:g}: no trial with kept weights is as fast; expected at least "
            f"{latencies[fastest]:.3g} seconds, the latency of trial {candidates.trials[fastest].id}"
        )
    counts = select(candidates.selection, Budget(size, candidates.latencies, max_latency), seed)
    members = np.flatnonzero(counts)
    best = int(max(allowed, key=lambda m: _accuracy(candidates, m)))
    total = float(latencies[members].sum())
    not_slower = [m for m in range(len(latencies)) if latencies[m] <= total]
    nearest = int(max(not_slower, key=lambda m: latencies[m]))
    identity = np.eye(len(counts))
    reference = accuracies(average(candidates.judging.probabilities, identity[best]), candidates.judging)
    rows = [
        _row("best single trial", identity[best], candidates, reference),
        _row("ensemble", counts, candidates, reference),
        _row("nearest in latency", identity[nearest], candidates, reference),
    ]
    note = ""
    if latencies[nearest] < NEAR * total:
        note = (
            f"no kept trial is as slow as the ensemble: trial {candidates.trials[nearest].id}, the nearest, takes "
            f"{latencies[nearest] / total:.0%} of its time"
        )
    weights = [int(counts[m]) for m in members]
    return Judged([int(m) for m in members], weights, rows, note, candidates.judging.count, candidates.unit)


def listed(numbers: Sequence[int]) -> str:
    """Format numbers as in ``3, 7 and 24``."""
    words = [str(number) for number in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _accuracy(candidates: Candidates, member: int) -> float:
    """Return the mean accuracy of a candidate over the episodes of both halves."""
    parts = (candidates.selection, candidates.judging)
    return float(np.concatenate([accuracies(part.probabilities[member], part) for part in parts]).mean())


def _row(title: str, weights: np.ndarray, candidates: Candidates, reference: np.ndarray) -> Row:
    """Measure a weighted average on the judging half."""
    part, members = candidates.judging, np.flatnonzero(weights)
    probabilities = average(part.probabilities, weights)
    found = accuracies(probabilities, part)
    logits = torch.from_numpy(np.log(np.maximum(probabilities, SMALLEST)))
    trials = [candidates.trials[m] for m in members]
    return Row(
        title, [trial.id for trial in trials], float(found.mean()), interval95(found),
        float((found - reference).mean()), interval95(found - reference),
        calibration_error(logits, torch.from_numpy(part.targets)),
        float(sum(candidates.latencies[m] for m in members)), sum(int(t.metrics.get("params", 0)) for t in trials),
    )  # fmt: skip
