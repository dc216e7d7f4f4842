"""Calibrate the model of an export, and read the calibration of an exported folder."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nas_meta.config.problem import episode_shape, load_tasks
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.files import regular_file
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.learners.base import Learner
from nas_meta.learners.metric import MetricLearner
from nas_meta.space.search_space import SearchSpace

if TYPE_CHECKING:
    from nas_meta.evaluation.calibration import Calibration
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.models.encoder import Encoder

CALIBRATION = "calibration.json"
MOST_BYTES = 1024**2
log = logging.getLogger(__name__)


def identity(learner: Learner, pooling: str) -> str:
    """Return what a calibration depends on besides the weights: the learner, its options and the pooling."""
    return json.dumps([type(learner).__name__, learner.options.model_dump(mode="json"), pooling], sort_keys=True)


def calibrated(
    config: ResolvedConfig, space: SearchSpace, evaluation: Evaluation, encoder: Encoder
) -> Calibration | None:
    """Calibrate a trained model on the tasks of its run.

    Args:
        config: Config of the run.
        space: Its space.
        evaluation: The evaluation of the model's architecture.
        encoder: The model.

    Returns:
        The calibration; None if the learner compares no embeddings, the splits have too few classes, or the data cannot
        be read any more, which is logged.
    """
    from nas_meta.evaluation.calibration import calibrate

    learner = evaluation.learner
    if not isinstance(learner, MetricLearner):
        return None
    try:
        tasks = load_tasks(config, space)
    except NasMetaError as error:
        log.warning("probabilities are not calibrated: %s", error)
        return None
    evaluation = dataclasses.replace(evaluation, tasks=tasks, shape=episode_shape(config, tasks=tasks))
    with torch.random.fork_rng():
        return calibrate(evaluation, encoder, learner)


def read_calibration(folder: Path, learner: Learner, pooling: str) -> Calibration | None:
    """Read the calibration of an exported folder.

    Args:
        folder: The folder.
        learner: The learner with which the model is loaded.
        pooling: The pooling with which the model is loaded.

    Returns:
        The calibration; None if the folder has none, or one of another learner.

    Raises:
        ConfigError: The file is damaged.
    """
    from nas_meta.evaluation.calibration import from_json

    file = folder / CALIBRATION
    if not file.exists():
        return None
    try:
        return from_json(regular_file(file, MOST_BYTES).read_text(encoding="utf-8"), identity(learner, pooling))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged; expected what 'nas-meta export' wrote, or no such file") from error
