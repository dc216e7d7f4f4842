"""Whole searches with a time budget, so that different kinds of search are compared at equal cost.

Time is the CPU time of the process, not elapsed time: other jobs on the machine do not shorten a search.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas_meta.journal.records import Trial


class OutOfTime(Exception):
    """Ends a search whose time budget is used up."""


@dataclass(frozen=True)
class TimedSearch:
    """Result of a search with a time budget.

    Attributes:
        trials: completed trials.
        seconds: CPU seconds that the search took.
        seconds_to_first: CPU seconds until the first trial began; includes the training of a supernet.
        test_accuracy: accuracy of the best trial on the meta-test episodes of the config; None if no trial completed.
    """

    trials: list[Trial]
    seconds: float
    seconds_to_first: float
    test_accuracy: float | None


def evaluation_of(document: Mapping[str, Any]) -> Any:
    """Builds the evaluation of a config, ready to run trials on one thread."""
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve

    resolved = resolve(document)
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation.setup()
    return evaluation


def search_within(document: Mapping[str, Any], seconds: float) -> TimedSearch:
    """Runs a search in this process on one thread and stops it when its time is used up.

    Args:
        document: config of the search, as a dictionary.
        seconds: time budget in CPU seconds.
    """
    import nas_meta
    from nas_meta.errors import RunError

    document = {**document, "resources": {"cpus_per_trial": 1}}
    # Builds the evaluation before the clock starts, so that imports do not count against the budget.
    evaluation = evaluation_of(document)
    started, first_trial = time.process_time(), []

    def watch(status: Any) -> None:
        spent = time.process_time() - started
        if status.trials and not first_trial:
            first_trial.append(spent)
        if spent > seconds:
            raise OutOfTime

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        try:
            nas_meta.search(document, directory, inline=True, watch=watch)
        except OutOfTime:
            pass
        spent = time.process_time() - started
        run = nas_meta.load_run(directory)
        trials = [t for t in run.trials if t.status == "completed"]
        test_accuracy = None
        try:
            weights = np.frombuffer(run.weights_of(run.best), dtype=np.uint8)
            result = evaluation.test(nas_meta.Architecture(run.best.architecture), weights)
            test_accuracy = result.metrics["test_accuracy"]
        except RunError:
            pass
    return TimedSearch(trials, spent, first_trial[0] if first_trial else spent, test_accuracy)
