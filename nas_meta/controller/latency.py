"""When a search measures latency: of a few random models before it, and of the Pareto front after it.

The first measurements fit a table that predicts latency during the search, when busy workers would disturb a clock.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat

from nas_meta.config.sections import Config
from nas_meta.controller.calls import Call, run_calls
from nas_meta.errors import NasMetaError
from nas_meta.evaluation.metrics import LATENCY, of_form
from nas_meta.execution.engine import Engine, Event
from nas_meta.journal.database import Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.row_checks import validated
from nas_meta.models.onnx.forms import TORCH
from nas_meta.models.profiling import LatencySettings
from nas_meta.space.architecture import Architecture
from nas_meta.space.latency_predictor import LatencyTable
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import timed_space

log = logging.getLogger(__name__)
KEY = "latencies"  # of the journal
Seconds = Annotated[FiniteFloat, Field(strict=True, gt=0)]
FEWEST = 2  # models that a latency table can be fitted to


def measure_each(
    engine: Engine, architectures: Sequence[Architecture], settings: LatencySettings, stopped: Callable[[], bool],
    retries: int = 0,
) -> list[Event]:  # fmt: skip
    """Measure the latency of architectures one by one, so that only one worker is busy at a time.

    Args:
        engine: Runs the models on its workers.
        architectures: The architectures to measure.
        settings: How latency is measured.
        stopped: Called after every event; returns whether to stop with the results so far.
        retries: How often a measurement is retried after the death of its worker.

    Returns:
        The event that ends each measurement, in the order of the architectures: its value has what
        :func:`nas_meta.models.profiling.latency` returns as ``metrics``, or its ``error`` says why there is none.
    """
    calls = [Call(number, "latency", (architecture, settings)) for number, architecture in enumerate(architectures)]
    return sorted(run_calls(engine, calls, retries, stopped, at_once=1), key=lambda event: event.key)


def measured_front(
    engine: Engine, front: Sequence[Trial], settings: LatencySettings, stopped: Callable[[], bool], retries: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure the latency of trials after a search, while nothing else runs.

    Args:
        engine: Runs the models on its workers.
        front: The trials.
        settings: How latency is measured.
        stopped: Called after every event; returns whether to stop with the results so far.
        retries: How often a measurement is retried after the death of its worker.

    Returns:
        What was measured by trial id, and why other trials have no latency, by what is missing.
    """
    architectures = [Architecture(trial.architecture) for trial in front]
    events = list(zip(front, measure_each(engine, architectures, settings, stopped, retries), strict=False))
    found = {str(t.id): dict(event.value.metrics) for t, event in events if not event.error}
    return found, {f"latency of trial {t.id}": event.error for t, event in events if event.error}


def architectures_to_measure(space: SearchSpace, models: int, seed: int) -> list[Architecture]:
    """Sample distinct architectures to which a latency table is fitted.

    Args:
        space: The search space.
        models: The number of architectures.
        seed: The seed of the search.

    Returns:
        The architectures; fewer if the space is too small.
    """
    rng = np.random.default_rng(seed)
    return list({a.id: a for a in (space.sample(rng) for _ in range(10 * models))}.values())[:models]


def fit_latency_table(
    engine: Engine,
    space: SearchSpace,
    models: int,
    settings: LatencySettings,
    seed: int,
    journal: Journal,
    stopped: Callable[[], bool],
    retries: int = 0,
) -> LatencyTable | None:
    """Fit a table that predicts latency, and give it to the space, which applies the limits on latency with it.

    Args:
        engine: Runs the models on its workers.
        space: The space of a search that optimises latency.
        models: The number of random architectures to measure.
        settings: How latency is measured; here at most 0.3 s per model.
        seed: The seed of the search.
        journal: The journal; the measured latencies are stored there for a resumed search.
        stopped: Returns whether the search was interrupted.
        retries: How often a measurement is retried after the death of its worker.

    Returns:
        The table; None if the search was interrupted.

    Raises:
        ConfigError: No architecture meets the limits on latency.
        NasMetaError: Fewer than two models could be built and run.
    """
    settings = dataclasses.replace(settings, seconds=min(settings.seconds, 0.3))
    architectures = architectures_to_measure(space, models, seed)
    seconds = validated(list[Seconds | None] | None, journal.get(KEY), KEY)
    if seconds is None:
        events = measure_each(engine, architectures, settings, stopped, retries)
        if len(events) < len(architectures):
            return None
        seconds = [None if event.error else event.value.metrics[LATENCY] for event in events]
        errors = [f"{a}: {event.error}" for a, event in zip(architectures, events, strict=True) if event.error]
        if errors and len(seconds) - len(errors) < FEWEST:
            raise NasMetaError(f"the latencies of {len(errors)} models could not be measured; the first is {errors[0]}")
        for error in errors:
            log.warning("the latency table lacks a model that could not be measured: %s", error)
        journal.set(KEY, seconds)
    measured = [(a, s) for a, s in zip(architectures, seconds, strict=False) if s is not None]
    name = of_form(LATENCY, settings.form)
    found = [s for _, s in measured]
    table = LatencyTable(timed_space(space).space, [a for a, _ in measured], found, settings.tokens, name)
    timed_space(space).latencies = table
    space.sample(np.random.default_rng(seed))
    return table


def latency_report(
    table: LatencyTable | None, settings: LatencySettings, config: Config, trials: Mapping[str, Any], inputs: str
) -> dict[str, Any]:
    """Return the entry ``latency`` of a run's report.

    Args:
        table: The table that predicted latencies during the search; None if latency was not an objective.
        settings: How latency was measured.
        config: The config of the search.
        trials: The measured latencies by trial id.
        inputs: Description of the inputs that were measured.

    Returns:
        The latencies, how they were measured, and what stood in for them during the search.
    """
    in_torch = settings.form == TORCH
    on_gpu = in_torch and config.device == "cuda"
    device = "a GPU" if on_gpu else f"{settings.threads} CPU thread{'s' * (settings.threads > 1)}"
    stood_in = "FLOPs" if table is None else f"a table per choice, off by {table.error:.0%} on held-out models"
    return {"batch": settings.batch, "tokens": settings.tokens, "inputs": inputs, "device": device,
            "during_search": stood_in, "form": settings.form, "trials": dict(trials)}  # fmt: skip
