"""Format durations, metrics, trials and architectures as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import ACCURACY, Metric, shown_metrics
from nas_meta.journal.records import Trial


def clock(seconds: float) -> str:
    """Format seconds as ``m:ss``, or from one hour as ``h:mm:ss``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def named_value(metric: Metric, metrics: Mapping[str, float]) -> str:
    """Format a metric with its title, such as ``15.9 M parameters``.

    Args:
        metric: The metric.
        metrics: Metrics of a trial.

    Returns:
        The value with its title, for the accuracy without; empty if the trial does not have the metric.
    """
    value = metric.format(metrics)
    return value if metric.name == ACCURACY or not value else f"{value} {metric.title}"


def trial_line(trial: Trial, objectives: Sequence[str] = ()) -> str:
    """Format a finished trial as one line.

    Args:
        trial: The trial.
        objectives: Metrics to show in addition to those that are always shown.

    Returns:
        Its metrics and duration in seconds, or the reason of its failure.
    """
    if not trial.metrics:
        return f"trial {trial.id}: {trial.status}: {one_line(str(trial.error))}"
    seconds = sum(trial.metrics.get(f"{part}_seconds", 0) for part in ("pretrain", "train", "evaluate"))
    values = [named_value(metric, trial.metrics) for metric in shown_metrics(list(objectives))]
    stopped = f"stopped at step {trial.fidelity}: " if trial.status == "stopped" else ""
    return f"trial {trial.id}: {stopped}{', '.join(filter(None, values))}, {seconds:.1f} s"


def short(architecture: Mapping[str, Any]) -> str:
    """Format an architecture as one short line.

    Choices of one group are listed together and those that are False are left out: ``layer0.heads=4, layer0.keep=True,
    layer1.keep=False`` becomes ``layer0 heads=4 keep``.

    Args:
        architecture: Values by choice.
    """
    groups: dict[str, list[str]] = {}
    for name, value in architecture.items():
        group, _, choice = name.rpartition(".")
        if value is False:
            continue
        groups.setdefault(group, []).append(choice if value is True else f"{choice}={value}")
    return one_line("; ".join(f"{g} {' '.join(v)}".strip() for g, v in groups.items()))


def choices(trial: Trial) -> list[str]:
    """Return the architecture of a trial, one line per choice.

    Args:
        trial: The trial.
    """
    return [f"  {one_line(name)}: {one_line(str(value))}" for name, value in trial.architecture.items()]
