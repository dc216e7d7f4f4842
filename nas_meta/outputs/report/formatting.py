"""Numbers and architectures as words for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_meta.errors import one_line
from nas_meta.journal.records import Trial


def percent(accuracy: float, interval: float) -> str:
    """An accuracy with its 95% interval, in percent."""
    return f"{100 * accuracy:.1f} ± {100 * interval:.1f} %"


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def trial_line(trial: Trial) -> str:
    """A finished trial in one line."""
    if not trial.metrics:
        return f"trial {trial.id}: {trial.status}: {one_line(str(trial.error))}"
    m = trial.metrics
    seconds = sum(m.get(f"{part}_seconds", 0) for part in ("pretrain", "train", "evaluate"))
    return (
        f"trial {trial.id}: {f'stopped at step {trial.fidelity}: ' if trial.status == 'stopped' else ''}"
        f"{percent(m['accuracy'], m['accuracy_ci95'])}, {millions(m['params'], 1)} M parameters, "
        f"{millions(m['flops'], 0)} MFLOPs, {seconds:.1f} s"
    )


def millions(count: float, places: int) -> str:
    """A count in millions: with so many decimal places, or two digits where these would not show it."""
    return f"{count / 1e6:.{places}f}" if count >= 1e7 / 10**places or not count else f"{count / 1e6:.2g}"


def milliseconds(measured: Mapping[str, float] | None) -> str:
    """A measured latency."""
    return f"{1000 * measured['latency']:.1f} ms" if measured else ""


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
