"""The meta-test at the end of a search: the best trials and the references, all on the same episodes."""

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
    """Meta-test trials, the unsearched model of the space and the baselines.

    Args:
        engine: Runs the tests on its workers.
        directory: The run directory, with the weights of trials.
        trials: The trials to test; those without weights are skipped.
        space: The search space; its unsearched model is tested if there is one.
        stopped: Called after every event; returns whether to stop with the results so far.
        before: The space before domain adaptation; its unsearched model is tested, too. None without adaptation.

    Returns:
        The metrics of trials by id under ``trials``, and those of the unsearched model and of baselines by name under
        ``references``.

    Raises:
        NasMetaError: One of the tests failed.
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
                raise NasMetaError(f"the meta-test of {name} failed: {event.error}")
            report[kind][name] = dict(event.value.metrics)
            if calls:
                break
    return report
