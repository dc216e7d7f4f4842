"""A whole search that ends after so many seconds of its process, so that searches of every kind cost the same."""

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
    """The seconds of a search are over."""


@dataclass(frozen=True)
class TimedSearch:
    """What a search completed in its time.

    Attributes:
        first: seconds until the first trial began, those of a supernet's training among them.
        tested: accuracy of the best trial on the meta-test episodes of the config; None where nothing was completed.
    """

    trials: list[Trial]
    seconds: float
    first: float
    tested: float | None


def evaluation_of(document: Mapping[str, Any]) -> Any:
    """The evaluation of a config, on one thread."""
    from nas_meta.config.components import make_evaluation, prepare
    from nas_meta.config.resolved import resolve

    resolved = resolve(document)
    space, tasks, shape = prepare(resolved)
    space.prepare(tasks, 0)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation.setup()
    return evaluation


def search_within(document: Mapping[str, Any], seconds: float) -> TimedSearch:
    """Runs a search in this process, on one thread, and ends it when its time is over."""
    import nas_meta
    from nas_meta.errors import RunError

    document = {**document, "resources": {"cpus_per_trial": 1}}
    # Before the clock runs: everything is imported, too.
    evaluation = evaluation_of(document)
    started, begun = time.process_time(), []

    def watch(status: Any) -> None:
        spent = time.process_time() - started
        if status.trials and not begun:
            begun.append(spent)
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
        tested = None
        try:
            weights = np.frombuffer(run.weights_of(run.best), dtype=np.uint8)
            result = evaluation.test(nas_meta.Architecture(run.best.architecture), weights)
            tested = result.metrics["test_accuracy"]
        except RunError:
            pass
    return TimedSearch(trials, spent, begun[0] if begun else spent, tested)
