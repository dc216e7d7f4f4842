"""Calibrate the model of an export on the tasks of its run."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from nas_meta.config.problem import episode_shape, load_tasks
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.guard import first_line
from nas_meta.learners.base import Learner
from nas_meta.learners.metric import MetricLearner
from nas_meta.space.search_space import SearchSpace

if TYPE_CHECKING:
    from nas_meta.evaluation.calibration import Calibration
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.models.encoder import Encoder
    from nas_meta.tasks.pool import Tasks

log = logging.getLogger(__name__)


def identity(learner: Learner, pooling: str) -> str:
    """Return what a calibration depends on besides the weights: the learner, its options and the pooling."""
    return json.dumps([type(learner).__name__, learner.options.model_dump(mode="json"), pooling], sort_keys=True)


def calibrated(
    config: ResolvedConfig, space: SearchSpace, evaluation: Evaluation, encoder: Encoder,
    on_tasks: Callable[[Tasks], None] = lambda tasks: None,
) -> Calibration | None:  # fmt: skip
    """Calibrate a trained model on the tasks of its run.

    Args:
        config: Config of the run.
        space: Its space.
        evaluation: The evaluation of the model's architecture.
        encoder: The model.
        on_tasks: Called with the tasks once they are read.

    Returns:
        The calibration; None if the learner compares no embeddings, the splits have too few classes, or the data cannot
        be read any more or do not fit the model, which is logged: an export without calibration is of use, too.
    """
    from nas_meta.evaluation.calibrate import calibrate

    learner = evaluation.learner
    if not isinstance(learner, MetricLearner):
        return None
    try:
        tasks = load_tasks(config, space)
        on_tasks(tasks)
        evaluation = dataclasses.replace(evaluation, tasks=tasks, shape=episode_shape(config, tasks=tasks))
        with torch.random.fork_rng():
            return calibrate(evaluation, encoder, learner)
    except Exception as error:  # files of the run and of the data may hold anything by now
        log.warning("probabilities are not calibrated: %s", first_line(error, with_type=False))
        return None
