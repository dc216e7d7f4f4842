"""What a model learned about its own scores: temperatures of probabilities, and when to refuse an answer.

A new task has no out-of-scope examples and perhaps 25 labelled ones, too few to place a threshold. What transfers from
other tasks is the threshold in standard units: each task's scores are standardised by its own leave-one-out scores
(:func:`nas_meta.learners.open_set.units_of`), and the quantiles of standardised queries are those of meta-validation.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nas_meta.core.files import regular_file
from nas_meta.errors import ConfigError
from nas_meta.learners.open_set import Units

CALIBRATION = "calibration.json"
MOST_BYTES = 1024**2
VERSION = 1
LEVELS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Calibration:
    """What a model learned about its own scores.

    Attributes:
        quantiles: By number of support examples per class, its name included if names are used, the quantiles of
            standardised scores in scope at :data:`LEVELS`.
        temperatures: By number of classes, what logits are divided by.
        measured: Measurements on meta-test: ``oos_auroc``, ``oos_fpr95``, ``refused`` (share of queries in scope that
            ``refuse`` = 0.05 refuses), ``ece_before`` and ``ece_after``.
    """

    quantiles: dict[int, list[float]]
    temperatures: dict[int, float]
    measured: dict[str, float] = field(default_factory=dict)

    def threshold(self, units: Units, shots: float, refuse: float) -> float:
        """Return the score below which a task refuses an answer.

        Args:
            units: Standard units of the task.
            shots: Mean number of support examples per class.
            refuse: Share of queries in scope that may be refused.
        """
        known = [s for s in self.quantiles if (s > 1) == units.left_out] or list(self.quantiles)
        nearest = min(known, key=lambda s: abs(np.log(s / shots)))
        level = max((i for i, level in enumerate(LEVELS) if level <= refuse), default=0)
        return units.location + units.scale * self.quantiles[nearest][level]

    def temperature(self, ways: int) -> float:
        """Return what the logits of a task are divided by: interpolated in the logarithm of the number of classes."""
        known = sorted(self.temperatures)
        logs = np.log([self.temperatures[w] for w in known])
        return float(np.exp(np.interp(np.log(ways), np.log(known), logs)))

    def as_json(self, learner: str) -> str:
        """Return the calibration as one JSON document.

        Args:
            learner: What identifies the learner, its options and the pooling.
        """
        return json.dumps({"version": VERSION, "learner": learner, **asdict(self)}, indent=1)


def read_calibration(folder: Path, learner: str | None = None) -> Calibration | None:
    """Read the calibration of an exported folder.

    Args:
        folder: The folder.
        learner: What identifies the learner with which the model is loaded; None does not compare it.

    Returns:
        The calibration; None if the folder has none, or one of another learner.

    Raises:
        ConfigError: The file is damaged.
    """
    file = folder / CALIBRATION
    if not file.exists():
        return None
    try:
        return from_json(regular_file(file, MOST_BYTES).read_text(encoding="utf-8"), learner)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged; expected what 'nas-meta export' wrote, or no such file") from error


def from_json(text: str, learner: str | None) -> Calibration | None:
    """Read what :meth:`Calibration.as_json` returned.

    Args:
        text: The document.
        learner: What identifies the learner now; None does not compare it.

    Returns:
        The calibration; None if it is that of another learner.

    Raises:
        ValueError: It is something else.
    """
    document: Any = json.loads(text)
    try:
        if learner not in (None, document["learner"]):
            return None
        quantiles = {int(shots): [float(q) for q in row] for shots, row in document["quantiles"].items()}
        temperatures = {int(ways): float(t) for ways, t in document["temperatures"].items()}
        valid = document["version"] == VERSION and quantiles and temperatures and min(temperatures.values()) > 0
        if not valid or any(len(row) != len(LEVELS) for row in quantiles.values()):
            raise ValueError("calibration")
        return Calibration(quantiles, temperatures, {k: float(v) for k, v in document["measured"].items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("calibration") from error
