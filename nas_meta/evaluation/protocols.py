"""The protocols of an evaluation: what one measured accuracy is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_meta.errors import ConfigError

if TYPE_CHECKING:
    from nas_meta.learners.base import Learner
    from nas_meta.tasks.episodes import EpisodeShape

EPISODES = "episodes"  # tasks of N random classes
FULL_WAY = "full-way"  # all classes of a split at once, for several draws of the support set
DRAWS = 10  # draws of a full-way evaluation
NAMED = "with class names"  # the name of each class is one more support example


def task_words(ways: int | None, shots: int, class_names: bool) -> str:
    """Return what a task is, such as ``5-way 1-shot`` or ``1-shot, with class names``.

    Args:
        ways: Number of classes; None leaves it out.
        shots: Support examples per class, without its name.
        class_names: Whether support sets have the names of the classes, too.
    """
    words = f"{shots}-shot" if ways is None else f"{ways}-way {shots}-shot"
    return f"{words}, {NAMED}" if class_names else words


def check_ways(learner: Learner, train: EpisodeShape, judged: EpisodeShape) -> None:
    """Refuse to meta-train a learner with a head of fixed size on another number of classes.

    Args:
        learner: The learner.
        train: Shape of the episodes of meta-training.
        judged: Shape of the episodes of meta-validation and meta-test.

    Raises:
        ConfigError: The learner has such a head, and the numbers of classes differ.
    """
    if not learner.any_ways and train.ways != judged.ways:
        raise ConfigError(
            f"tasks.train_ways is {train.ways}, but the head of {type(learner).__name__} has tasks.ways = "
            f"{judged.ways} classes; expected the same number, or a learner without a fixed head, such as protonet"
        )
