"""Whether a search space, a task source, a learner and the training options fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas_meta.config.resolved import ResolvedConfig
from nas_meta.errors import ConfigError, TrialError
from nas_meta.space.search_space import SearchSpace
from nas_meta.tasks.examples import IMAGE, MODALITIES, size

if TYPE_CHECKING:
    from nas_meta.tasks.pool import Tasks
    from nas_meta.tasks.source import TaskSource

OF_WORDS = ("word_dropout", "word_swap", "synonyms")


def check_source(space: SearchSpace, source: TaskSource, resolved: ResolvedConfig) -> None:
    """Raises ConfigError where a task source gives what the space, or the training that is asked for, does not take."""
    names = f"'{resolved.sections.space.name}'", f"'{resolved.sections.tasks.source}'"
    takes, gives = (MODALITIES.get(part.modality, part.modality) for part in (space, source))
    if takes != gives:
        raise ConfigError(
            f"the search space {names[0]} takes {takes}, but the task source {names[1]} gives {gives}; expected a "
            "space and a source of one kind"
        )
    if source.modality != IMAGE:
        return
    for option in OF_WORDS:
        if max(resolved.training(option)) > 0:
            raise ConfigError(
                f"learner.training.{option} changes the words of texts, but the task source {names[1]} gives {gives}; "
                "expected 0"
            )
    if set(resolved.training("adversarial")) != {"none"}:
        raise ConfigError(
            f"learner.training.adversarial disturbs the token embeddings of texts, but the task source {names[1]} "
            f"gives {gives}; expected none"
        )


def check_images(space: SearchSpace, tasks: Tasks, resolved: ResolvedConfig) -> None:
    """Raises ConfigError where a space takes images of another shape than those of the tasks."""
    for pool in tasks.pools.values():
        if pool.pixels is not None and len(pool) and tuple(pool.pixels.shape[1:]) != tuple(space.image_shape):
            raise ConfigError(
                f"the search space '{resolved.sections.space.name}' takes images of {size(space.image_shape)} "
                f"(channels, height, width), but the task source '{resolved.sections.tasks.source}' gives "
                f"{size(pool.pixels.shape[1:])}; expected the same of both"
            )


def check_learner(resolved: ResolvedConfig, space: SearchSpace) -> None:
    """Tries on a model what the learner needs of it, before every trial would fail by that.

    Raises:
        ConfigError: the models of the space have not what the learner needs.
    """
    from nas_meta.learners.base import Learner

    learner = resolved.plugin("learner")(resolved.options["learner"])
    if resolved.searched.choices or type(learner).equip is Learner.equip:
        return
    try:
        model = space.build(space.sample(np.random.default_rng(resolved.sections.seed)))
    except Exception:  # of one architecture: its trial will say so, and others may be built
        return
    try:
        learner.equip(model)
    except TrialError as error:
        raise ConfigError(str(error)) from error
