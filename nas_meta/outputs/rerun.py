"""Run one trial of a run again in this process, from its journal row alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from nas_meta.config.components import make_evaluation, make_strategy
from nas_meta.config.gpu_sharing import on_this_machine
from nas_meta.config.pretraining import make_stage, read_corpus
from nas_meta.config.problem import load_problem
from nas_meta.core.files import read_array
from nas_meta.errors import RunError
from nas_meta.evaluation.progress import Progress
from nas_meta.evaluation.trial import Evaluation
from nas_meta.journal.pretraining_record import path_of
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.outputs.changes import differences
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace


def rerun(
    run: Run,
    trial: Trial,
    watch: Callable[[Progress], None] = lambda progress: None,
    changed: Callable[[str], None] = lambda sentence: None,
) -> Mapping[str, float]:
    """Build, train and score a trial again, with the same number of threads.

    A trial that was stopped at a rung stops at the same rung. Exceptions of the model, the learner or the space
    propagate unchanged, so that a debugger stops where they are raised. A trial of a search on GPUs runs on the CPU if
    this machine has no GPU and ``compute.device`` is ``auto``.

    Args:
        run: The run.
        trial: A trial of the run.
        watch: Called with the progress of every step.
        changed: Called before the training with each difference from what the trial ran with, such as other data, a
            changed model, or another version of torch.

    Returns:
        The metrics of the trial.

    Raises:
        RunError: The weights from which the trial started are no longer in the run directory.
    """
    resolved = on_this_machine(run.config)
    space, tasks, shape = load_problem(resolved)
    for sentence in differences(run, trial, tasks):
        changed(sentence)
    evaluation = make_evaluation(resolved, space, tasks, shape, run.cpus)
    stopping = resolved.options["stopping"]
    evaluation = evaluation.with_rungs(stopping.rungs, stopping.episodes)
    architecture = space.canonical(trial.architecture)  # a damaged journal may name values that the space lacks
    start, donor = _strategy_weights(run, space, architecture), None
    if resolved.sections.pretraining is not None and resolved.sections.pretraining.of == "candidates":
        evaluation, start, donor = with_pretraining(run, trial, evaluation)
    evaluation.setup()
    steps = trial.planned if run.findings else None  # the strategy may have shortened the training
    training = evaluation.trial(architecture, trial.seed, start=start, donor=donor, steps=steps)
    while True:
        try:
            progress = next(training)
        except StopIteration as end:
            return end.value.metrics
        watch(progress)
        if progress.pauses and trial.status == "stopped" and progress.step == trial.fidelity:
            training.close()
            return progress.metrics


def _strategy_weights(run: Run, space: SearchSpace, architecture: Architecture) -> np.ndarray | None:
    """Return the weights from which the strategy started the trial, such as those of a supernet; None if it did not."""
    if not run.findings:
        return None
    strategy = make_strategy(run.config, space)
    try:
        strategy.receive(run.findings, run.supernet)
        return strategy.start_of(architecture)
    finally:
        strategy.close()


def with_pretraining(
    run: Run, trial: Trial, evaluation: Evaluation
) -> tuple[Evaluation, np.ndarray | None, np.ndarray | None]:
    """Add the pre-training of candidates to the evaluation of a trial.

    A trial that pre-trained its model repeats the pre-training. A trial that reused the pre-trained weights of an
    equal architecture (``pretrain_seconds`` is 0) loads them again.

    Args:
        run: The run.
        trial: The trial.
        evaluation: Evaluation of the run, without pre-training.

    Returns:
        The evaluation with pre-training, the pre-trained weights to reuse (or None), and the donor's weights from which
        the pre-training starts (or None).

    Raises:
        RunError: The trial was not pre-trained, or the weights are no longer in the run directory.
    """
    record = run.pretrained(trial.id)
    if record is None:
        raise RunError(f"trial {trial.id} was not pre-trained; the search ended before it started")
    stage = make_stage(run.config, read_corpus(run.config), evaluation.space)
    evaluation = dataclasses.replace(evaluation, pretraining=stage)
    if trial.metrics.get("pretrain_seconds") == 0:
        return evaluation, _load_weights(run, trial, record["key"]), None
    return evaluation, None, record["donor"] and _load_weights(run, trial, record["donor"])


def _load_weights(run: Run, trial: Trial, key: str) -> np.ndarray:
    """Return pre-trained weights from the run directory."""
    path = path_of(run.directory, key)
    if not path.is_file():
        raise RunError(
            f"trial {trial.id} started from pre-trained weights that were deleted ({path.name}): pretraining.keep is "
            f"{run.config.sections.pretraining.keep}; a search with a larger value keeps more"
        )
    return read_array(path)
