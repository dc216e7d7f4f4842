"""Checks that search space, task source, learner and training options fit together.

A mismatch is reported as one sentence before the search starts, instead of failing every trial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas_meta.config.resolved import ResolvedConfig
from nas_meta.errors import ConfigError, TrialError
from nas_meta.evaluation.metrics import METRICS, OPEN_SET
from nas_meta.models.onnx.forms import TORCH, check_packages
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


def check_deployed(resolved: ResolvedConfig) -> None:
    """Check that metrics of ONNX graphs can be measured, before anything is loaded.

    Args:
        resolved: The config.

    Raises:
        ConfigError: A package is not installed, or the models of a learner cannot be exported as ONNX graphs.
    """
    forms = {METRICS[o.metric].title: METRICS[o.metric].form for o in resolved.sections.objectives}
    graphs = [title for title, form in forms.items() if form != TORCH]
    if not graphs:
        return
    from nas_meta.learners.closed_form import NAMES, in_closed_form

    check_packages(f"objectives: {graphs[0]}")
    choices, section = resolved.searched.choices, resolved.sections.learner.name
    several = "learner.name" in choices
    learners = {name: plugin() for name, plugin in resolved.searched.learners.items()}
    if not several:
        learners = {section: resolved.plugin("learner")(resolved.options["learner"])}
    for name, learner in learners.items():
        if not in_closed_form(learner):
            raise ConfigError(
                f"objectives: {graphs[0]} is measured of an ONNX graph, but the learner '{name}' adapts with torch; "
                f"expected {', '.join(NAMES[:-1])} or {NAMES[-1]}, or of: torch"
            )


def check_open_set(resolved: ResolvedConfig, tasks: Tasks, ways: int) -> None:
    """Check that open-set metrics can be measured if the config asks for them.

    Args:
        resolved: The config.
        tasks: The tasks.
        ways: Classes of an episode.

    Raises:
        ConfigError: A learner does not compare embeddings, or meta-validation has no other classes.
    """
    if not set(resolved.sections.asked_metrics) & set(OPEN_SET):
        return
    from nas_meta.learners.metric import MetricLearner

    for name, plugin in resolved.searched.learners.items():
        if not issubclass(plugin, MetricLearner):
            raise ConfigError(
                f"{' and '.join(OPEN_SET)} compare embeddings, which the learner '{name}' does not; expected a learner "
                "such as protonet, or evaluation.open_set: false without such objectives"
            )
    classes = tasks["meta-validation"].most_ways
    if classes <= ways:
        raise ConfigError(
            f"{' and '.join(OPEN_SET)} need queries of classes besides the {ways} of an episode, but meta-validation "
            f"has {classes}; expected a smaller tasks.ways, or data with more classes"
        )
