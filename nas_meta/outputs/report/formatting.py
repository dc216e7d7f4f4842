"""Numbers and architectures as words for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import ACCURACY, Metric, shown_metrics
from nas_meta.journal.records import Trial


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def named_value(metric: Metric, metrics: Mapping[str, float]) -> str:
    """Show a metric within a sentence, such as ``15.9 M parameters``.

    Args:
        metric: The metric.
        metrics: Metrics of a trial.

    Returns:
        The value with its title, the accuracy without; empty where the trial does not have it.
    """
    value = metric.format(metrics)
    return value if metric.name == ACCURACY or not value else f"{value} {metric.title}"


def trial_line(trial: Trial, objectives: Sequence[str] = ()) -> str:
    """Show a finished trial in one line.

    Args:
        trial: The trial.
        objectives: Metrics to show besides the overview.

    Returns:
        Its metrics and duration, or the reason why it failed.
    """
    if not trial.metrics:
        return f"trial {trial.id}: {trial.status}: {one_line(str(trial.error))}"
    seconds = sum(trial.metrics.get(f"{part}_seconds", 0) for part in ("pretrain", "train", "evaluate"))
    values = [named_value(metric, trial.metrics) for metric in shown_metrics(list(objectives))]
    stopped = f"stopped at step {trial.fidelity}: " if trial.status == "stopped" else ""
    return f"trial {trial.id}: {stopped}{', '.join(filter(None, values))}, {seconds:.1f} s"


def short(architecture: Mapping[str, Any]) -> str:
    """An architecture in a few words: choices of one group (``layer0.keep``) stand together."""
    groups: dict[str, list[str]] = {}
    for name, value in architecture.items():
        group, _, choice = name.rpartition(".")
        if value is False:
            continue
        groups.setdefault(group, []).append(choice if value is True else f"{choice}={value}")
    return one_line("; ".join(f"{g} {' '.join(v)}".strip() for g, v in groups.items()))


def choices(trial: Trial) -> list[str]:
    """An architecture in lines."""
    return [f"  {one_line(name)}: {one_line(str(value))}" for name, value in trial.architecture.items()]
