"""One trial of a run once more, in this process, from its journal row alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from nas_meta.config.components import make_evaluation, make_strategy
from nas_meta.config.pretraining import make_stage, read_corpus
from nas_meta.config.problem import load_problem
from nas_meta.errors import RunError
from nas_meta.evaluation.progress import Progress
from nas_meta.evaluation.trial import Evaluation
from nas_meta.journal.pretraining_record import path_of
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace


def rerun(run: Run, trial: Trial, watch: Callable[[Progress], None] = lambda progress: None) -> Mapping[str, float]:
    """Builds, trains and scores a trial again, with the threads that it had; returns its metrics.

    A trial that was stopped at a rung ends there again. Whatever the model, the learner or the space raise comes
    through as it is, for a debugger.

    Args:
        watch: called with every meta-training step.
    """
    resolved = run.config
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, run.cpus)
    stopping = resolved.options["stopping"]
    evaluation = evaluation.with_rungs(stopping.rungs, stopping.episodes)
    architecture = Architecture(trial.architecture)
    start, donor = _start(run, space, architecture), None
    if resolved.sections.pretraining is not None and resolved.sections.pretraining.of == "candidates":
        evaluation, start, donor = as_it_was(run, trial, evaluation)
    evaluation.setup()
    steps = evaluation.trial(architecture, trial.seed, start=start, donor=donor)
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return end.value.metrics
        watch(progress)
        if progress.pauses and trial.status == "stopped" and progress.step == trial.fidelity:
            steps.close()
            return progress.metrics


def _start(run: Run, space: SearchSpace, architecture: Architecture) -> np.ndarray | None:
    """The weights that the trial started from, where the strategy gave it some."""
    if not run.findings:
        return None
    strategy = make_strategy(run.config, space)
    try:
        strategy.receive(run.findings, run.supernet)
        return strategy.start_of(architecture)
    finally:
        strategy.close()


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
            f"{run.config.sections.pretraining.keep}"
        )
    return np.fromfile(path, dtype=np.uint8)
