"""Checks that search space, task source, learner and training options fit together.

A mismatch is reported as one sentence before the search starts, instead of failing every trial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas_meta.config.resolved import ResolvedConfig
from nas_meta.errors import ConfigError, TrialError
from nas_meta.space.search_space import SearchSpace
from nas_meta.tasks.examples import IMAGE, MODALITIES, TEXT, size

if TYPE_CHECKING:
    from nas_meta.tasks.pool import Tasks
    from nas_meta.tasks.source import TaskSource

WORD_OPTIONS = ("word_dropout", "word_swap", "synonyms")


def check_source(space: SearchSpace, source: TaskSource, resolved: ResolvedConfig) -> None:
    """Check that the inputs of a task source suit the search space and the training options.

    Args:
        space: The search space.
        source: The task source.
        resolved: The config.

    Raises:
        ConfigError: The space takes other inputs, or a training option applies only to texts.
    """
    names = f"'{resolved.sections.space.name}'", f"'{resolved.sections.tasks.source}'"
    takes, gives = (MODALITIES.get(part.modality, part.modality) for part in (space, source))
    if takes != gives:
        raise ConfigError(
            f"the search space {names[0]} takes {takes}, but the task source {names[1]} gives {gives}; expected a "
            "space and a source of the same kind"
        )
    if source.modality != IMAGE:
        return
    for option in WORD_OPTIONS:
        if max(resolved.training(option)) > 0:
            raise ConfigError(
                f"learner.training.{option} changes the words of texts, but the task source {names[1]} gives {gives}; "
                "expected 0"
            )
    if set(resolved.training("adversarial")) != {"none"}:
        raise ConfigError(
            f"learner.training.adversarial perturbs the token embeddings of texts, but the task source {names[1]} "
            f"gives {gives}; expected none"
        )


def check_images(space: SearchSpace, tasks: Tasks, resolved: ResolvedConfig) -> None:
    """Check that the images of the tasks have the shape that the models of a space take.

    Args:
        space: The search space.
        tasks: The tasks; pools of texts are skipped.
        resolved: The config.

    Raises:
        ConfigError: The shapes differ.
    """
    for pool in tasks.pools.values():
        if pool.pixels is not None and len(pool) and tuple(pool.pixels.shape[1:]) != tuple(space.image_shape):
            raise ConfigError(
                f"the search space '{resolved.sections.space.name}' takes images of {size(space.image_shape)} "
                f"(channels, height, width), but the task source '{resolved.sections.tasks.source}' gives "
                f"{size(pool.pixels.shape[1:])}; expected the same shape"
            )


def check_class_names(space: SearchSpace, resolved: ResolvedConfig) -> None:
    """Check that the names of classes can be support examples.

    Args:
        space: The search space.
        resolved: The config, with ``tasks.class_names``.

    Raises:
        ConfigError: The examples have images, or a learner reads the names of classes anyway.
    """
    if space.modality != TEXT:
        raise ConfigError(
            f"tasks.class_names makes examples of the names of classes, which are texts, but the task source "
            f"'{resolved.sections.tasks.source}' gives {MODALITIES[space.modality]}; expected class_names: false"
        )
    for name, learner in resolved.searched.learners.items():
        if "template" in learner.Options.model_fields:
            raise ConfigError(
                f"learner '{name}' has the names of classes in its prompts already; expected tasks.class_names: false"
            )


def check_learner(resolved: ResolvedConfig, space: SearchSpace) -> None:
    """Check on one random model that the learner can equip the models of a space, for example with adapters.

    Args:
        resolved: The config; nothing is checked if the learner is a choice.
        space: The prepared search space.

    Raises:
        ConfigError: The models lack something that the learner needs.
    """
    from nas_meta.learners.base import Learner

    learner = resolved.plugin("learner")(resolved.options["learner"])
    if resolved.searched.choices or type(learner).equip is Learner.equip:
        return
    try:
        model = space.build(space.sample(np.random.default_rng(resolved.sections.seed)))
    except Exception:  # concerns this architecture only: its trial would report the error, and others may work
        return
    try:
        learner.equip(model)
    except TrialError as error:
        raise ConfigError(str(error)) from error
