"""The pre-training of a trial that is run again, from what the journal and the run directory hold."""

from __future__ import annotations

import dataclasses

import numpy as np

from nas_meta.config.pretraining import make_stage, read_corpus
from nas_meta.errors import RunError
from nas_meta.evaluation.trial import Evaluation
from nas_meta.journal.pretraining_record import path_of
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run


def as_it_was(
    run: Run, trial: Trial, evaluation: Evaluation
) -> tuple[Evaluation, np.ndarray | None, np.ndarray | None]:
    """The evaluation with its stage, the weights that the trial started from, and those that it inherited.

    A trial that had pre-trained its model does so again; one that found the weights of another takes them again.

    Raises:
        RunError: it was not pre-trained, or what it began with is no longer kept.
    """
    record = run.pretrained(trial.id)
    if record is None:
        raise RunError(f"trial {trial.id} was not pre-trained: it had not begun when the search ended")
    stage = make_stage(run.config, read_corpus(run.config), evaluation.space)
    evaluation = dataclasses.replace(evaluation, pretraining=stage)
    if trial.metrics.get("pretrain_seconds") == 0:
        return evaluation, _kept(run, trial, record["key"]), None
    return evaluation, None, record["donor"] and _kept(run, trial, record["donor"])


def _kept(run: Run, trial: Trial, key: str) -> np.ndarray:
    path = path_of(run.directory, key)
    if not path.is_file():
        raise RunError(
            f"trial {trial.id} began with weights that are no longer kept ({path.name}); pretraining.keep is "
            f"{run.config.config.pretraining.keep}"
        )
    return np.fromfile(path, dtype=np.uint8)
