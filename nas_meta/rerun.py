"""One trial of a run once more, in this process, from its journal row alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nas_meta.config.components import make_evaluation, make_strategy, prepare
from nas_meta.evaluation.progress import Progress
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
    space, tasks, shape = prepare(resolved)
    space.prepare(tasks, resolved.config.seed)
    evaluation = make_evaluation(resolved, space, tasks, shape, run.cpus)
    stopping = resolved.config.stopping
    evaluation = evaluation.with_rungs(stopping.rungs, stopping.episodes)
    architecture = Architecture(trial.architecture)
    start, donor = _start(run, space, architecture), None
    if resolved.config.pretraining is not None and resolved.config.pretraining.of == "candidates":
        from nas_meta.pretraining.again import as_it_was

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
