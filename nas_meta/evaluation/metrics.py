"""The metrics of a trial: one row per metric, read by the config, the journal, every report and every strategy.

A new metric is a row here and the line of :mod:`nas_meta.evaluation.trial` that measures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ACCURACY = "accuracy"
INTERVAL = "_ci95"  # what follows the name of a metric in that of its 95% interval


@dataclass(frozen=True)
class Metric:
    """One metric of a trial.

    Attributes:
        name: Its key in a trial's metrics and in the config's ``objectives``.
        title: Heading of its column in tables.
        description: What it measures.
        direction: Which way is better.
        known: When it is known: ``count`` where the space can count it before a build, ``build`` when the model is
            built, ``training`` when a trial has been trained and validated, ``end`` after the search (an objective of
            that kind is predicted during the search).
        unit: Unit of the value as it is shown.
        scale: Factor from the stored value to the shown one, such as 100 for percent.
        decimals: Decimals of the shown value.
        small_digits: Significant digits of a shown value that its decimals would round away; 0 keeps the decimals.
        always: Whether every measured trial has it.
        overview: Whether tables and HParams show it by default; others are shown where they are objectives.
        needs: The config key without which no trial has it.
    """

    name: str
    title: str
    description: str
    direction: Literal["maximize", "minimize"] = "minimize"
    known: Literal["count", "build", "training", "end"] = "training"
    unit: str = ""
    scale: float = 1.0
    decimals: int = 1
    small_digits: int = 0
    always: bool = True
    overview: bool = False
    needs: str | None = None

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.direction == "maximize" else -1

    @property
    def axis(self) -> str:
        """Label of an axis."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def format(self, metrics: Mapping[str, float], prefix: str = "") -> str:
        """Show the value for a person.

        Args:
            metrics: Metrics of a trial.
            prefix: What stands before the name in ``metrics``, such as ``test_`` for meta-test.

        Returns:
            The value with its unit, and with its 95% interval where that was measured; empty where there is no value.
        """
        value = metrics.get(prefix + self.name)
        if value is None:
            return ""
        interval = metrics.get(f"{prefix}{self.name}{INTERVAL}")
        shown = self._number(value) + ("" if interval is None else f" ± {self._number(interval)}")
        return f"{shown} {self.unit}" if self.unit else shown

    def _number(self, value: float) -> str:
        shown = value * self.scale
        if self.small_digits and shown and abs(shown) < 10 / 10**self.decimals:
            return f"{shown:.{self.small_digits}g}"
        return f"{shown:.{self.decimals}f}"


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            ACCURACY,
            "accuracy",
            "mean accuracy over meta-validation episodes",
            direction="maximize",
            unit="%",
            scale=100,
            overview=True,
        ),
        Metric(ACCURACY + INTERVAL, "95% interval", "half-width of the accuracy's 95% interval", unit="%", scale=100),
        Metric(
            "params",
            "parameters",
            "parameters of the model",
            known="count",
            unit="M",
            scale=1e-6,
            small_digits=2,
            overview=True,
        ),
        Metric(
            "flops",
            "MFLOPs",
            "floating-point operations for one example",
            known="count",
            scale=1e-6,
            decimals=0,
            small_digits=2,
            overview=True,
        ),
        Metric("train_seconds", "training", "duration of meta-training", unit="s"),
        Metric("evaluate_seconds", "validation", "duration of meta-validation", unit="s"),
        Metric(
            "pretrain_seconds",
            "pre-training",
            "duration of pre-training; 0 where the weights of an equal trial were reused",
            unit="s",
            always=False,
            needs="pretraining",
        ),
        Metric("peak_memory", "memory", "peak memory of the trial", unit="MiB", scale=2**-20, decimals=0),
        Metric(
            "latency",
            "latency",
            "median time for one batch, measured alone on the machine",
            known="end",
            unit="ms",
            scale=1000,
            always=False,
        ),
        Metric(
            "adapted_share",
            "adapted",
            "share of the parameters that adapt to a task",
            known="build",
            unit="%",
            scale=100,
        ),
        Metric(
            "trained_params",
            "trained",
            "parameters that meta-training changes",
            known="build",
            unit="M",
            scale=1e-6,
            small_digits=2,
        ),
    )
}
OVERVIEW = tuple(metric for metric in METRICS.values() if metric.overview)


def metric_of(name: str) -> Metric:
    """Return the row of a metric, also of one that an older or newer version measured.

    Args:
        name: Key in a trial's metrics.

    Returns:
        The row; one that shows the plain number where the name is not known.
    """
    return METRICS.get(name) or Metric(name, name, name, decimals=3, always=False)


def shown_metrics(objectives: tuple[str, ...] | list[str] = ()) -> list[Metric]:
    """List the metrics that a table of trials shows.

    Args:
        objectives: Names of the metrics that the search optimises or limits.

    Returns:
        The overview, then the other objectives in their order.
    """
    extra = [metric_of(name) for name in dict.fromkeys(objectives)]
    return [*OVERVIEW, *(metric for metric in extra if not metric.overview)]
