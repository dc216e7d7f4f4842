"""Validation of everything that is read from a journal: a damaged or untrusted file may contain anything."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from nas_meta.core.files import is_encodable
from nas_meta.errors import RunError
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL, METRICS

STATUSES = ("running", "completed", "failed", "stopped", "timed-out")
REQUIRED = (ACCURACY, ACCURACY + INTERVAL, *(m.name for m in METRICS.values() if m.known == "count"))
"""Metrics that every measured trial has, in journals of every version."""
Count = Annotated[int, Field(ge=0, le=10**6)]
LARGEST = 1e300  # absolute value of a metric or choice


def parse_json(text: Any) -> Any:
    """Parse JSON of the journal.

    Args:
        text: The JSON.

    Returns:
        The plain data.

    Raises:
        RunError: The text is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"the journal cannot be read: {error}") from error


def validated(kind: Any, value: Any, what: str) -> Any:
    """Check the type of a value of the journal.

    Args:
        kind: The expected type, anything that pydantic can validate.
        value: The value.
        what: The key of the value, for the message.

    Returns:
        The value, unchanged.

    Raises:
        RunError: The value is not of the type.
    """
    try:
        TypeAdapter(kind).validate_python(value)
    except (ValidationError, RecursionError) as error:
        raise RunError(
            f"the journal cannot be read: '{what}' is not of the type that nas-meta writes; the file is damaged"
        ) from error
    return value


def recorded_config(value: Any) -> dict[str, Any]:
    """Check the config that a journal records. Without it, a search would be resumed with the default config.

    Args:
        value: Value of the key ``config``; None if the journal lacks the key.

    Returns:
        The config, unchanged.

    Raises:
        RunError: The journal has no config, or its config is not a mapping.
    """
    if value is None:
        raise RunError("the journal cannot be read: it has no 'config'; the file is damaged")
    return validated(dict[str, Any], value, "config")


class MetaTestMetrics(BaseModel):
    """Meta-test metrics of a trial or of a reference."""

    model_config = ConfigDict(strict=True)
    test_accuracy: FiniteFloat
    test_accuracy_ci95: float
    params: FiniteFloat = 0
    flops: FiniteFloat = 0


class RightAnswers(BaseModel):
    """Numbers of correct queries per meta-test episode, by id of a trial or by name."""

    model_config = ConfigDict(strict=True)
    trials: dict[str, list[Count]] = {}
    references: dict[str, list[Count]] = {}
    comparisons: dict[str, list[Count]] = {}


class TrainedComparison(BaseModel):
    """An architecture that was trained to compare the best trial with it, and its meta-test."""

    model_config = ConfigDict(strict=True)
    name: str
    architecture: dict[str, Any]
    seed: int
    metrics: MetaTestMetrics
    right: list[Count]
    final: dict[str, Any] | None = None  # options of its final training; missing in older journals


class FinallyTrained(BaseModel):
    """A trial that was trained further at the end of a search."""

    model_config = ConfigDict(strict=True)
    trial: Count
    seed: int
    options: dict[str, Any]
    metrics: dict[str, FiniteFloat]
    kept: bool
    error: str


class LatencyReport(BaseModel):
    """Latencies, and how they were measured."""

    model_config = ConfigDict(strict=True)
    batch: int
    tokens: int
    inputs: str = ""  # a description; missing in older journals
    device: str
    during_search: str
    form: Literal["torch", "onnx", "onnx-int8"] = "torch"  # missing in older journals
    trials: dict[str, dict[Literal["latency", "latency_iqr", "latency_load", "latency_busy"], FiniteFloat]]


class MetaTest(BaseModel):
    """The report at the end of a search; empty before."""

    model_config = ConfigDict(strict=True)
    trials: dict[str, MetaTestMetrics] = {}
    references: dict[str, MetaTestMetrics] = {}
    comparisons: dict[str, MetaTestMetrics] = {}  # this and the next three: missing in older journals
    compared: int | None = None
    right: RightAnswers = RightAnswers()
    queries: Count = 0
    latency: LatencyReport | None = None
    unmeasured: dict[str, str] = {}  # reasons by name; missing in older journals


def problem_of_row(row: tuple) -> str | None:
    """Check a row of the table ``trials``.

    Args:
        row: Id, architecture, seed, fidelity, status, metrics, error, started, finished and planned, JSON parsed.

    Returns:
        What is wrong with the row; None if it is valid.
    """
    number, architecture, seed, fidelity, status, metrics, error, started, finished, planned = row
    integers = {"id": number, "seed": seed, "fidelity": fidelity, "planned": planned}
    for name, value in integers.items():
        if not isinstance(value, int):
            return f"its {name} is not a whole number"
    if not (_is_number(started) and (finished is None or _is_number(finished))):
        return "its times are not numbers"
    if status not in STATUSES:
        return f"its status is not one of {', '.join(STATUSES)}"
    if not isinstance(error, (str, type(None))):
        return "its error is not text"
    if not (isinstance(architecture, dict) and all(map(_is_choice, architecture.items()))):
        return "its architecture is not a mapping from choices to values"
    if not (isinstance(metrics, dict) and all(isinstance(n, str) and _is_measured(v) for n, v in metrics.items())):
        return "its metrics are not numbers"
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
