"""The meta-test of one model: every model is tested on the same episodes, so that any two can be compared in pairs."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.evaluation.baselines import baseline_accuracies
from nas_meta.evaluation.final_training import FinalTraining, trained_further
from nas_meta.evaluation.full_way import query_count, scores
from nas_meta.evaluation.metrics import ACCURACY, INTERVAL
from nas_meta.evaluation.progress import Progress, Result
from nas_meta.models.profiling import interval95, parameters

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.learners.base import Learner
    from nas_meta.models.encoder import Encoder
    from nas_meta.space.architecture import Architecture


def model_result(evaluation: Evaluation, encoder: Encoder, learner: Learner) -> Result:
    """Test a model on the meta-test episodes.

    Args:
        evaluation: The evaluation of the search.
        encoder: The model.
        learner: Learner that classifies.

    Returns:
        Its accuracy, with the number of correct queries in every episode, and its size.
    """
    found = evaluation.accuracies(encoder, "meta-test", evaluation.settings.test_episodes, learner)
    return _result(evaluation, found, params=parameters(encoder.model), flops=evaluation.flops(encoder.model))


def baseline_result(evaluation: Evaluation, name: str) -> Result:
    """Test a baseline on the meta-test episodes.

    Args:
        evaluation: The evaluation of the search.
        name: One of :data:`nas_meta.evaluation.baselines.BASELINES`.

    Returns:
        Its accuracy, with the number of correct queries in every episode.
    """
    pool, settings = evaluation.tasks["meta-test"], evaluation.settings
    count = settings.test_episodes
    found = scores(evaluation, "meta-test", count, lambda tasks: baseline_accuracies(name, pool, tasks))
    return _result(evaluation, found)


def comparison_result(
    evaluation: Evaluation, architecture: Architecture, seed: int, final: FinalTraining | None = None
) -> Generator[Progress, None, Result]:
    """Train an architecture that the best trial is compared with, exactly as a trial would be, and test it.

    It starts from the initial weights of the space, not from those of a supernet. It never pauses at rungs, and the
    limits of the objectives do not apply: the whole model may exceed them.

    Args:
        evaluation: The evaluation of the search.
        architecture: Architecture of the joint space, with the searched hyperparameters of the best trial.
        seed: Seed of the best trial.
        final: The final training that the best trial went through; None without one.

    Yields:
        The progress of the training.

    Returns:
        The result of the meta-test.
    """
    free = replace(evaluation, limits=(), measured=(), settings=replace(evaluation.settings, rungs=()))
    trained = yield from free.trial(architecture, seed, keep_above=-math.inf)
    assert trained.weights is not None  # no accuracy is below the threshold
    if final is not None:
        trained = yield from trained_further(free, architecture, trained.weights, seed, final)
        assert trained.weights is not None
    return free.test(architecture, trained.weights)


def _result(evaluation: Evaluation, found: np.ndarray, **size: float) -> Result:
    queries = query_count(evaluation.tasks["meta-test"], evaluation.shape, evaluation.settings.protocol)
    metrics = {f"test_{ACCURACY}": float(found.mean()), f"test_{ACCURACY}{INTERVAL}": interval95(found), **size}
    return Result(metrics, right=tuple(round(float(score) * queries) for score in found))
