"""What stands in a journal, checked: a damaged file, or one from somebody else, may hold anything in any place."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter, ValidationError

from nas_meta.core.files import is_encodable
from nas_meta.errors import RunError
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL, METRICS

STATUSES = ("running", "completed", "failed", "stopped", "timed-out")
REQUIRED = (ACCURACY, ACCURACY + INTERVAL, *(m.name for m in METRICS.values() if m.known == "count"))
"""Metrics of every measured trial, in journals of every version."""
LARGEST = 1e300


def parse_json(text: Any) -> Any:
    """Plain data from the journal's JSON.

    Raises:
        RunError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"the journal cannot be read: {error}") from error


def validated(kind: Any, value: Any, what: str) -> Any:
    """A value that a journal holds, as it is, if it is of that kind.

    Raises:
        RunError: it is not.
    """
    try:
        TypeAdapter(kind).validate_python(value)
    except (ValidationError, RecursionError) as error:
        raise RunError(f"the journal cannot be read: what stands under '{what}' is not what a search writes") from error
    return value


class MetaTestMetrics(BaseModel):
    """What meta-test measured of one trial, or of what trials are compared with."""

    model_config = ConfigDict(strict=True)
    test_accuracy: FiniteFloat
    test_accuracy_ci95: float
    params: FiniteFloat = 0
    flops: FiniteFloat = 0


class LatencyReport(BaseModel):
    """Latencies, and how they were measured."""

    model_config = ConfigDict(strict=True)
    batch: int
    tokens: int
    inputs: str = ""  # in words; journals of before have none
    device: str
    during_search: str
    trials: dict[str, dict[Literal["latency", "latency_iqr"], FiniteFloat]]


class MetaTest(BaseModel):
    """The report of a search that has ended, or nothing."""

    model_config = ConfigDict(strict=True)
    trials: dict[str, MetaTestMetrics] = {}
    references: dict[str, MetaTestMetrics] = {}
    latency: LatencyReport | None = None


def problem_of_row(row: tuple) -> str | None:
    """Why a row of trials (id, architecture, seed, fidelity, status, metrics, ...) is none; None where it is one."""
    number, architecture, seed, fidelity, status, metrics, error, started, finished, planned = row
    integers = {"id": number, "seed": seed, "fidelity": fidelity, "planned": planned}
    for name, value in integers.items():
        if not isinstance(value, int):
            return f"its {name} is no whole number"
    if not (_is_number(started) and (finished is None or _is_number(finished))):
        return "its times are no numbers"
    if status not in STATUSES or not isinstance(error, (str, type(None))):
        return "its status is none"
    if not (isinstance(architecture, dict) and all(map(_is_choice, architecture.items()))):
        return "its architecture is none"
    if not (isinstance(metrics, dict) and all(isinstance(n, str) and _is_measured(v) for n, v in metrics.items())):
        return "its metrics are no numbers"
    missing = [name for name in REQUIRED if not _is_number(metrics.get(name))]
    if missing and (metrics or status == "completed"):
        return f"it lacks the metric '{missing[0]}'"
    return None


def _is_choice(item: tuple[str, Any]) -> bool:
    name, value = item
    return is_encodable(name) and (
        is_encodable(value) if isinstance(value, str) else value is None or _is_measured(value, True)
    )


def _is_measured(value: Any, or_bool: bool = False) -> bool:
    if isinstance(value, bool):
        return or_bool
    return isinstance(value, (int, float)) and (value != value or abs(value) < LARGEST)


def _is_number(value: Any) -> bool:
    return _is_measured(value) and value == value
