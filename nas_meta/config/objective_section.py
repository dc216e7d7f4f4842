"""Section ``objectives``: what a search optimises and what it must not exceed, with the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nas_meta.config.section import Section
from nas_meta.core.objectives import Share
from nas_meta.core.paths import NamesFiles, absolute_if_any
from nas_meta.errors import nearest
from nas_meta.evaluation.metrics import ACCURACY, LATENCY, METRICS, metric_of, of_form
from nas_meta.models.onnx.forms import FORMS, TORCH

DEFAULT_OBJECTIVES = [
    {"metric": "accuracy", "direction": "maximize"},
    {"metric": "flops", "direction": "minimize"},
]


def is_limit(objective: Mapping[str, Any]) -> bool:
    """Return whether an entry of ``objectives`` only limits its metric.

    Args:
        objective: The entry, not validated yet.
    """
    return objective.keys().isdisjoint({"direction", "reference"}) and not objective.keys().isdisjoint({"min", "max"})


def with_defaults(given: Any) -> Any:
    """Add limits to the default objectives if there are only limits: they do not say what is better.

    Args:
        given: Section ``objectives``, not validated yet.

    Returns:
        The default objectives with the limits in them, and further limits after them; the section itself if an entry
        has a direction.
    """
    if not isinstance(given, list) or not given or not all(isinstance(o, dict) and is_limit(o) for o in given):
        return given
    limits = {str(o.get("metric")): o for o in given}
    return [o | limits.pop(o["metric"], {}) for o in DEFAULT_OBJECTIVES] + list(limits.values())


def _limit(given: str, *, folder: str | None = None) -> str:
    """Return a limit with the absolute path of the model that it is relative to, such as ``0.5x of my-model``."""
    factor, x, model = given.partition("x ")
    of, _, name = model.strip().rpartition("of ")
    return f"{factor}{x}{of}of {absolute_if_any(name.strip(), folder=folder)}" if x and name else given


class ObjectiveSection(Section):
    """Entry of ``objectives``: a metric that is optimised, limited or both."""

    metric: str = Field(description="metric of a trial, such as accuracy, params or flops")
    of: Literal["torch", "onnx", "onnx-int8"] | None = Field(
        None,
        description="form of the model whose latency or accuracy this is: the one that will be deployed, also written "
        "as metric: latency_onnx_int8; by default torch",
    )
    direction: Literal["maximize", "minimize", "none"] = Field(
        description="which way is better; none only limits the metric; by default none if only min or max is given, "
        "otherwise the metric's usual direction"
    )
    min: Annotated[float | str | None, NamesFiles(_limit)] = Field(
        None,
        description="smallest allowed value, given like max; candidates below it are rejected; by default no limit",
    )
    max: Annotated[float | str | None, NamesFiles(_limit)] = Field(
        None,
        description="largest allowed value: a number, a number with a unit such as 345 MFLOPs, or 0.5x of the "
        "untouched model; candidates above it are rejected, before training if the metric is known by then; by "
        "default no limit",
    )
    reference: float | None = Field(
        None, description="value of the hypervolume's reference point; by default the worst value of all trials"
    )

    @model_validator(mode="before")
    @classmethod
    def _form_in_name(cls, given: Any) -> Any:
        """Turn ``{metric: latency, of: onnx-int8}`` into the metric ``latency_onnx_int8``."""
        if not isinstance(given, dict) or given.get("of") not in FORMS:
            return given
        metric, form = given.get("metric"), given["of"]
        if metric in (ACCURACY, LATENCY):
            return {**given, "metric": of_form(metric, form), "of": None}
        if metric in METRICS and METRICS[metric].form == form != TORCH:
            return {**given, "of": None}
        raise ValueError(f"{metric} has no forms such as {form}; expected 'of' with {ACCURACY} or {LATENCY} alone")

    @model_validator(mode="before")
    @classmethod
    def _direction(cls, given: Any) -> Any:
        if isinstance(given, dict) and "direction" not in given:
            given = given | {"direction": "none" if is_limit(given) else metric_of(str(given.get("metric"))).direction}
        return given

    @field_validator("min", "max", mode="before")
    @classmethod
    def _in_stored_unit(cls, given: Any, info: ValidationInfo) -> Any:
        """Turn a limit with a unit into a number; a relative one remains text."""
        limit = metric_of(str(info.data.get("metric"))).parse(given)
        return str(replace(limit, of=absolute_if_any(limit.of))) if isinstance(limit, Share) else limit

    @field_validator("metric")
    @classmethod
    def _is_measured(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no trial measures '{metric}'; {nearest(metric, METRICS)}")
        return metric
