"""Latencies of a search: before it a few, to fit a table to; after it those of the front."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nas_meta.config.sections import Config
from nas_meta.errors import NasMetaError
from nas_meta.execution.engine import Engine
from nas_meta.journal.database import Journal
from nas_meta.models.profiling import LatencySettings
from nas_meta.space.architecture import Architecture
from nas_meta.space.latency_predictor import LatencyTable
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import timed_space


def measure_each(
    engine: Engine, architectures: Sequence[Architecture], settings: LatencySettings, stopped: Callable[[], bool]
) -> list[dict[str, float]]:
    """:func:`nas_meta.models.profiling.latency` of every architecture on a worker, one by one, while the others rest.

    Args:
        stopped: asked after everything that happens; what is known by then is returned.

    Raises:
        NasMetaError: a model could not be built or run.
    """
    found: list[dict[str, float]] = []
    for architecture in architectures:
        engine.submit("latency", "latency", architecture, settings)
        for event in engine.events():
            if stopped():
                return found
            if event is not None and event.error:
                raise NasMetaError(f"the latency of {architecture} could not be measured: {event.error}")
            if event is not None:
                found.append(dict(event.value.metrics))
    return found


def architectures_to_measure(space: SearchSpace, models: int, seed: int) -> list[Architecture]:
    """That many random architectures, none twice, for a table to be fitted to."""
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
) -> LatencyTable | None:
    """Fit a table that predicts latency, and give it to the space, so that limits of the latency hold.

    Args:
        engine: Where models run.
        space: The space of a search that optimises latency.
        models: Random architectures that are measured.
        settings: How latency is measured; at most 0.3 s per model are spent here.
        seed: The seed of the search.
        journal: The journal, where the measured latencies are kept for a resumed search.
        stopped: Whether the search was interrupted.

    Returns:
        The table; None where the search was interrupted.

    Raises:
        ConfigError: No architecture meets the limits of the latency.
        NasMetaError: A model could not be built or run.
    """
    settings = dataclasses.replace(settings, seconds=min(settings.seconds, 0.3))
    architectures = architectures_to_measure(space, models, seed)
    seconds = journal.get("latencies")
    if seconds is None:
        seconds = [m["latency"] for m in measure_each(engine, architectures, settings, stopped)]
        if len(seconds) < len(architectures):
            return None
        journal.set("latencies", seconds)
    table = LatencyTable(timed_space(space).space, architectures, seconds, settings.tokens)
    timed_space(space).latencies = table
    space.sample(np.random.default_rng(seed))
    return table


def latency_report(
    table: LatencyTable | None, settings: LatencySettings, config: Config, trials: Mapping[str, Any], inputs: str
) -> dict[str, Any]:
    """What a run's report says of latency: what stood in during the search, and what was measured after it, of what."""
    device = "a GPU" if config.device == "cuda" else f"{settings.threads} CPU thread{'s' * (settings.threads > 1)}"
    if config.compute.precision != "fp32":
        device += f" in {config.compute.precision}"
    stood_in = "FLOPs" if table is None else f"a table per choice, off by {table.error:.0%} on models left out of it"
    return {"batch": settings.batch, "tokens": settings.tokens, "inputs": inputs, "device": device,
            "during_search": stood_in, "trials": dict(trials)}  # fmt: skip
