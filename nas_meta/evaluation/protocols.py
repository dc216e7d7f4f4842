"""The protocols of an evaluation: what one measured accuracy is about."""

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
