"""After the search: the best trials and what they are compared with, on the same meta-test episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas_meta.core.guard import plugin_call
from nas_meta.errors import NasMetaError
from nas_meta.evaluation.baselines import BASELINES
from nas_meta.execution.engine import Engine
from nas_meta.journal.records import Trial
from nas_meta.journal.run import weights_path
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace


def meta_test(
    engine: Engine, directory: Path, trials: Sequence[Trial], space: SearchSpace, stopped: Callable[[], bool],
    before: SearchSpace | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The metrics of trials whose weights were kept (``trials``, by id), of the unsearched model and of baselines.

    Args:
        before: the space as it was before its pretrained model was adapted, where it was: that model is tested too.
        stopped: asked after everything that happens; what is known by then is returned.

    Raises:
        NasMetaError: one of them failed.
    """
    calls: list[tuple[Any, ...]] = []
    for trial in trials:
        weights = weights_path(directory, trial.id)
        if weights.is_file():
            key = ("trials", str(trial.id))
            calls.append((key, "test", Architecture(trial.architecture), weights.read_bytes()))
    with plugin_call(space, "reference"):
        reference = space.reference()
    if reference is not None:
        calls.append((("references", "unsearched model, no training"), "test_reference"))
        if before is not None:
            calls.append((("references", "unsearched model before adaptation"), "test_reference", before))
    calls += [(("references", name), "test_baseline", name) for name in BASELINES[space.modality]]
    report: dict[str, dict[str, Any]] = {"trials": {}, "references": {}}
    while calls:
        engine.submit(*calls.pop(0))
        while calls and engine.free():
            engine.submit(*calls.pop(0))
        for event in engine.events():
            if stopped():
                return report
            if event is None:
                continue
            kind, name = event.key
            if event.error:
                raise NasMetaError(f"meta-test of {name} failed: {event.error}")
            report[kind][name] = dict(event.value.metrics)
            if calls:
                break
    return report
