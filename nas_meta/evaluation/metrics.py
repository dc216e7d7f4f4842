"""The metrics of a trial: one row per metric, read by the config, the journal, every report and every strategy.

A new metric is a row here and the line of :mod:`nas_meta.evaluation.trial` that measures it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nas_meta.core.objectives import Share
from nas_meta.models.onnx.forms import FORMS, TORCH

ACCURACY = "accuracy"
INTERVAL = "_ci95"  # suffix of a metric's name for the half-width of its 95% interval
LATENCY = "latency"
OPEN_SET = ("oos_auroc", "oos_fpr95")  # of open-set episodes
GRAPHS = FORMS[1:]  # forms other than torch


@dataclass(frozen=True)
class Metric:
    """One metric of a trial.

    Attributes:
        name: Its key in a trial's metrics and in the config's ``objectives``.
        title: Heading of its column in tables.
        description: What it measures.
        direction: Which way is better.
        known: When it is known: ``count`` if the space can count it before a model is built, ``build`` after the model
            is built, ``training`` after a trial is trained and validated, ``end`` after the search; an objective of the
            last kind is predicted during the search.
        unit: Unit of the value as it is shown.
        scale: Factor from the stored value to the shown one, such as 100 for percent.
        decimals: Decimals of the shown value.
        small_digits: Significant digits of values that ``decimals`` would round away; 0 always uses ``decimals``.
        always: Whether every measured trial has it.
        overview: Whether tables and HParams show it by default; others are shown if they are objectives.
        needs: Config section without which no trial has it; None if every config measures it.
        asked: Whether it is measured only if the config asks for it; tables show it where a trial has it.
        form: Form of the model that is measured; see :mod:`nas_meta.models.onnx.forms`.
        units: Further units in which a config may give a limit, each with its value in the stored unit.
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
    asked: bool = False
    form: str = TORCH
    units: Mapping[str, float] = field(default_factory=dict)

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is better."""
        return 1 if self.direction == "maximize" else -1

    @property
    def axis(self) -> str:
        """Label of a plot's axis, with the unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def format(self, metrics: Mapping[str, float], prefix: str = "") -> str:
        """Show the value for a person.

        Args:
            metrics: Metrics of a trial.
            prefix: Prefix of the name in ``metrics``, such as ``test_`` for meta-test.

        Returns:
            The value with its unit, and with its 95% interval if that was measured; empty if there is no value.
        """
        value = metrics.get(prefix + self.name)
        if value is None:
            return ""
        interval = metrics.get(f"{prefix}{self.name}{INTERVAL}")
        shown = self._number(value) + ("" if interval is None else f" ± {self._number(interval)}")
        return f"{shown} {self.unit}" if self.unit else shown

    def parse(self, given: Any) -> Any:
        """Read a limit as a config gives it: a number, a number with a unit, or a share of a model's size.

        For example, for ``flops``, ``345 MFLOPs`` is 345e6, and ``0.5x`` is half of the untouched model's FLOPs.

        Args:
            given: The value; anything but text is returned as it is, to be validated elsewhere.

        Returns:
            A number in the stored unit, or a :class:`~nas_meta.core.objectives.Share`.

        Raises:
            ValueError: The text is no such limit, or the metric has no size that is known before the search.
        """
        if not isinstance(given, str):
            return given
        split = re.fullmatch(r"\s*([-+.\d]+(?:e[-+]?\d+)?)\s*(.*?)\s*", given, re.IGNORECASE)
        number, unit = split.groups() if split else ("", "")
        units = {name.casefold(): value for name, value in self._all_units.items()}
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if value == value and unit.casefold() in units:
            return value * units[unit.casefold()]
        share = re.fullmatch(r"x(?:\s+(?:of\s+)?(.+))?", unit, re.IGNORECASE)
        if share and value > 0:
            if self.known != "count":
                relative = " and ".join(m.name for m in METRICS.values() if m.known == "count")
                raise ValueError(f"'{given}' is relative to a model, but only {relative} can be; expected a number")
            return Share(value, share[1] or "")
        raise ValueError(f"'{given}' is not a limit of {self.name}; expected {self._examples}")

    @property
    def _all_units(self) -> dict[str, float]:
        """All units of a limit, each with its value in the stored unit; the empty unit is the stored one."""
        return {"": 1.0, **({self.unit: 1 / self.scale} if self.unit else {}), **self.units}

    @property
    def _examples(self) -> str:
        examples = [f"'12 {unit}'" for unit in self._all_units if unit]
        relative = ["'0.5x'"] if self.known == "count" else []
        return ", ".join(["a number", *examples, *relative]).replace(", '", " such as '", 1)

    def _number(self, value: float) -> str:
        shown = value * self.scale
        if self.small_digits and shown and abs(shown) < 10 / 10**self.decimals:
            return f"{shown:.{self.small_digits}g}"
        return f"{shown:.{self.decimals}f}"


def of_form(name: str, form: str) -> str:
    """Return the name of a metric that is measured of a form of the model.

    Args:
        name: ``accuracy`` or ``latency``.
        form: One of :data:`nas_meta.models.onnx.forms.FORMS`.

    Returns:
        The name, such as ``latency_onnx_int8``; for torch the plain one.
    """
    return name if form == TORCH else f"{name}_{form.replace('-', '_')}"


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
            units={"k": 1e3, "B": 1e9},
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
            units={"MFLOPs": 1e6, "GFLOPs": 1e9, "M": 1e6, "G": 1e9},
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
        Metric(
            "peak_memory",
            "memory",
            "peak memory of the trial",
            unit="MiB",
            scale=2**-20,
            decimals=0,
            units={"GiB": 2**30},
        ),
        Metric(
            LATENCY,
            LATENCY,
            "median time for one batch, measured while no trial runs",
            known="end",
            unit="ms",
            scale=1000,
            always=False,
            units={"s": 1.0},
        ),
        *(
            Metric(
                of_form(LATENCY, form),
                f"{LATENCY} ({form})",
                f"median time for one batch of the model as an ONNX graph{words}, measured while no trial runs",
                known="end",
                unit="ms",
                scale=1000,
                always=False,
                units={"s": 1.0},
                form=form,
            )
            for form, words in zip(GRAPHS, ("", " in INT8"), strict=True)
        ),
        *(
            Metric(
                of_form(ACCURACY, form),
                f"{ACCURACY} ({form})",
                f"mean accuracy of the model as an ONNX graph{words} over the same meta-validation episodes",
                direction="maximize",
                unit="%",
                scale=100,
                always=False,
                asked=True,
                form=form,
            )
            for form, words in zip(GRAPHS, ("", " in INT8"), strict=True)
        ),
        Metric(
            "oos_auroc",
            "open-set AUROC",
            "area under the ROC curve of distinguishing queries of other classes, over open-set episodes",
            direction="maximize",
            unit="%",
            scale=100,
            always=False,
            asked=True,
        ),
        Metric(
            "oos_fpr95",
            "open-set FPR95",
            "share of queries of other classes that is accepted where 95 % of the episode's own are",
            unit="%",
            scale=100,
            always=False,
            asked=True,
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
    """Return the row of a metric, also for names that only another version of nas-meta measures.

    Args:
        name: Key in a trial's metrics.

    Returns:
        The row; for an unknown name, one that shows the plain number.
    """
    return METRICS.get(name) or Metric(name, name, name, decimals=3, always=False)


def shown_metrics(objectives: tuple[str, ...] | list[str] = (), measured: Iterable[str] = ()) -> list[Metric]:
    """List the metrics that a table of trials shows.

    Args:
        objectives: Names of the metrics that the search optimises or limits.
        measured: Names of the metrics that the trials have.

    Returns:
        The overview, then the other objectives in their order, and what else the config asked for.
    """
    known = set(measured)
    asked = [metric.name for metric in METRICS.values() if metric.asked and metric.name in known]
    extra = [metric_of(name) for name in dict.fromkeys([*objectives, *asked])]
    return [*OVERVIEW, *(metric for metric in extra if not metric.overview)]
