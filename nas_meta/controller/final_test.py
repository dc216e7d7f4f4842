"""The meta-test at the end of a search: the best trials and the references, all on the same episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_meta.controller.calls import Call, run_calls
from nas_meta.controller.final_training import FinalStage
from nas_meta.controller.trained_comparisons import TrainedComparisons
from nas_meta.core.files import read_array
from nas_meta.core.guard import first_line, plugin_call
from nas_meta.errors import NasMetaError
from nas_meta.evaluation.baselines import BASELINES
from nas_meta.execution.engine import Engine
from nas_meta.journal.compared_models import UNADAPTED, UNTRAINED
from nas_meta.journal.database import Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.weights import used_weights_path
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace


@dataclass(frozen=True)
class FinalModels:
    """The models that are tested at the end of a search.

    Attributes:
        directory: The run directory, with the weights of trials.
        trials: The trials to test, the best first; those without weights are skipped.
        space: The search space; its untouched model is tested if there is one.
        before: The space before domain adaptation; its untouched model is tested, too. None without adaptation.
        journal: Journal of the run, which keeps every trained comparison as soon as it is tested. None trains none.
        stage: The final training, which the comparisons go through if the best trial did; None without one.
    """

    directory: Path
    trials: Sequence[Trial]
    space: SearchSpace
    before: SearchSpace | None = None
    journal: Journal | None = None
    stage: FinalStage | None = None


def meta_test(
    engine: Engine, models: FinalModels, retries: int, stopped: Callable[[], bool],
    tested: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Meta-test trials, the untouched model of the space, what the best trial is compared with, and the baselines.

    A test that fails, for example because weights are damaged or a baseline cannot be fitted, does not end the search.

    Args:
        engine: Runs the tests on its workers.
        models: The models to test.
        retries: How often a test is retried after the death of its worker.
        stopped: Called after every event; returns whether to stop with the results so far.
        tested: Called with the number of models that are tested, and the number of all, at the start and whenever one
            more is.

    Returns:
        The metrics of trials by id under ``trials``, those of the untouched model and of baselines by name under
        ``references``, those of models trained like the trial ``compared`` under ``comparisons``, and under
        ``unmeasured`` the reasons of failed tests by name. ``right`` holds the numbers of correct queries per episode
        for the first three.
    """
    kinds: tuple[str, ...] = ("trials", "references", "comparisons")
    report: dict[str, Any] = {kind: {} for kind in (*kinds, "unmeasured")} | {"right": {kind: {} for kind in kinds}}
    comparisons = None
    if models.journal is not None and models.trials:
        best, stage = models.trials[0], models.stage
        final = stage.of(best) if stage else None
        comparisons = TrainedComparisons(models.journal, best, final, stage.options if stage and final else None)
        report["compared"] = best.id
    calls = [
        *(_comparison_calls(comparisons, models.space, report) if comparisons else ()),
        *_trial_calls(models, report["unmeasured"]),
        *_reference_calls(models, report["unmeasured"]),
        *(Call(("references", name), "test_baseline", (name,)) for name in BASELINES[models.space.modality]),
    ]
    tested(0, len(calls))
    for done, event in enumerate(run_calls(engine, calls, retries, stopped), start=1):
        tested(done, len(calls))
        kind, name = event.key
        if event.error:
            report["unmeasured"][_title(kind, name)] = event.error
            continue
        report[kind][name], report["right"][kind][name] = dict(event.value.metrics), list(event.value.right)
        if kind == "comparisons" and comparisons is not None:
            comparisons.keep(name, report[kind][name], report["right"][kind][name])
    return report


def _comparison_calls(comparisons: TrainedComparisons, space: SearchSpace, report: dict[str, Any]) -> list[Call]:
    """Return the calls that train what the journal lacks, and report what it holds."""
    calls = []
    try:
        calls = comparisons.calls(space)
    except NasMetaError as error:
        report["unmeasured"]["models trained like the best trial"] = first_line(error)
    for name, known in comparisons.known.items():
        report["comparisons"][name], report["right"]["comparisons"][name] = known["metrics"], known["right"]
    return calls


def _trial_calls(models: FinalModels, unmeasured: dict[str, str]) -> Iterator[Call]:
    """Yield the calls that test trials, each with its weights."""
    for trial in models.trials:
        weights = used_weights_path(models.directory, trial.id)
        if weights.is_file():
            try:
                arguments = Architecture(trial.architecture), read_array(weights).tobytes()
            except OSError as error:
                unmeasured[_title("trials", str(trial.id))] = f"{weights} cannot be read: {error.strerror}"
            else:
                yield Call(("trials", str(trial.id)), "test", arguments)


def _reference_calls(models: FinalModels, unmeasured: dict[str, str]) -> Iterator[Call]:
    """Yield the calls that test the untouched model and, with domain adaptation, the adapted one."""
    try:
        with plugin_call(models.space, "reference"):
            reference = models.space.reference()
    except NasMetaError as error:
        reference, unmeasured[UNTRAINED] = None, first_line(error)
    if reference is not None:
        yield Call(("references", UNTRAINED), "test_reference")
        if models.before is not None:
            yield Call(("references", UNADAPTED), "test_reference", (models.before,))


def _title(kind: str, name: str) -> str:
    """Return the name of a test under ``unmeasured``."""
    return f"trial {name}" if kind == "trials" else name
