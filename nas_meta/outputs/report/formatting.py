"""Format durations, metrics, trials and architectures as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import ACCURACY, Metric, shown_metrics
from nas_meta.journal.records import Trial

LAYER, KEEP = "layer", "keep"  # the numbered groups of most spaces, and the choice that says whether one is there


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
    values = [named_value(metric, trial.metrics) for metric in shown_metrics(list(objectives), trial.metrics)]
    stopped = f"stopped at step {trial.fidelity}: " if trial.status == "stopped" else ""
    return f"trial {trial.id}: {stopped}{', '.join(filter(None, values))}, {trial.seconds or 0.0:.1f} s"


def short(architecture: Mapping[str, Any]) -> str:
    """Format an architecture as one short text.

    Choices of one group are listed together and those that are False are left out. Numbered groups with the same
    choices are merged, and a choice that differs between them lists one value per group. For example,
    ``layer0.keep=True, layer0.heads=4, layer1.keep=False, layer2.keep=True, layer2.heads=2`` becomes
    ``layer0,2 keep heads=4,2``.

    Args:
        architecture: Values by choice.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, value in architecture.items():
        group, _, choice = name.rpartition(".")
        if value is not False:
            groups.setdefault(group, {})[choice] = value
    # Key: the name without its number, and the choices. Groups without a number stand alone.
    merged: dict[tuple[str, tuple[str, ...]], list[tuple[int | None, dict[str, Any]]]] = {}
    for group, values in groups.items():
        stem = group.rstrip("0123456789")
        number = int(group[len(stem) :]) if group != stem else None
        merged.setdefault((stem, tuple(values)), []).append((number, values))
    return one_line("; ".join(_members(stem, members) for (stem, _), members in merged.items()))


def compact(architecture: Mapping[str, Any]) -> str:
    """Format an architecture for a narrow column: the values of each layer without the names of its choices.

    Layers are listed as ``NUMBER:VALUE/VALUE``, and those with the same values together; layers that are left out are
    missing. For example, ``layer0.keep=True, layer0.heads=12, layer0.ffn=1536, layer1.keep=False, layer2.keep=True,
    layer2.heads=9, layer2.ffn=768`` becomes ``0:12/1536 2:9/768``. Other choices keep their names. What the values are
    is the heading of the column (:func:`compact_heading`).

    Args:
        architecture: Values by choice.
    """
    layers, others = _layers(architecture)
    parts = []
    for stem, groups in layers.items():
        alike: dict[str, list[int]] = {}
        for number, values in groups.items():
            alike.setdefault("/".join(map(_value, values.values())), []).append(number)
        prefix = "" if stem == LAYER else stem
        parts += [f"{prefix}{_ranges(numbers)}" + (f":{shown}" if shown else "") for shown, numbers in alike.items()]
    parts += [name if value is True else f"{name}={_value(value)}" for name, value in others.items()]
    return one_line(" ".join(parts))


def compact_heading(architectures: Iterable[Mapping[str, Any]]) -> str:
    """Return what the values of :func:`compact` are, such as ``layer:heads/ffn``.

    Args:
        architectures: The architectures of a column.

    Returns:
        The heading; ``architecture`` if no architecture has layers whose choices all have the same names.
    """
    names = {
        (stem, tuple(values))
        for architecture in architectures
        for stem, groups in _layers(architecture)[0].items()
        for values in groups.values()
    }
    if len(names) != 1:
        return "architecture"
    ((stem, choices),) = names
    return one_line(f"{stem}:{'/'.join(choices)}" if choices else stem)


def _layers(architecture: Mapping[str, Any]) -> tuple[dict[str, dict[int, dict[str, Any]]], dict[str, Any]]:
    """Return the choices of the numbered groups by name, number and choice, and then all other choices."""
    layers: dict[str, dict[int, dict[str, Any]]] = {}
    others: dict[str, Any] = {}
    for name, value in architecture.items():
        group, _, choice = name.rpartition(".")
        stem = group.rstrip("0123456789")
        if value is False:
            continue
        if stem != group:
            values = layers.setdefault(stem, {}).setdefault(int(group[len(stem) :]), {})
            values |= {} if value is True and choice == KEEP else {choice: value}
        else:
            others[name] = value
    return layers, others


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _members(stem: str, members: Sequence[tuple[int | None, Mapping[str, Any]]]) -> str:
    """Format groups with the same choices, such as ``layer0-2 keep heads=4,4,2``."""
    numbers = [number for number, _ in members if number is not None]
    parts = [stem + _ranges(numbers)] if stem or numbers else []
    for choice in members[0][1]:
        values = [str(values[choice]) for _, values in members]
        shown = values[0] if len(set(values)) == 1 else ",".join(values)
        parts.append(choice if all(values[choice] is True for _, values in members) else f"{choice}={shown}")
    return " ".join(parts)


def _ranges(numbers: Sequence[int]) -> str:
    """Format numbers, at least three in a row as a range: ``0-3,5`` for 0, 1, 2, 3, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def choices(trial: Trial) -> list[str]:
    """Return the architecture of a trial, one line per choice.

    Args:
        trial: The trial.
    """
    return [f"  {one_line(name)}: {one_line(str(value))}" for name, value in trial.architecture.items()]


def changed_choices(changes: Mapping[str, tuple[Any, Any]], missing: Any) -> str:
    """Format choices that change, such as ``layer5.keep: False → True (layer5.heads=9)``.

    Args:
        changes: Value before and after, by choice.
        missing: The value that stands for a choice that does not apply.

    Returns:
        The choices that have both values, then in brackets those that begin to apply; if there is nothing else, those
        that cease to apply.
    """
    both = [f"{name}: {a} → {b}" for name, (a, b) in changes.items() if missing not in (a, b)]
    begin = [f"{name}={b}" for name, (a, b) in changes.items() if a == missing]
    ceased = [f"without {name}" for name, (_, b) in changes.items() if b == missing]
    text = ", ".join(both or begin or ceased)
    return one_line(f"{text} ({', '.join(begin)})" if both and begin else text)
