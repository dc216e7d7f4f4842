"""Class names as support examples: what a class is called says a lot where it has one example, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_meta.core.guard import type_name
from nas_meta.errors import ConfigError, DataError
from nas_meta.outputs.classifier.labels import Label, plain_labels
from nas_meta.outputs.classifier.parts import ExampleChecks
from nas_meta.tasks.class_names import in_words
from nas_meta.tasks.examples import MODALITIES, TEXT, Example


def check_class_names(value: Any, preparation: ExampleChecks) -> bool | Mapping[Label, str] | None:
    """Return a valid setting ``class_names``.

    Args:
        value: Whether names are examples; or the name of each class in words; None for what the model was trained with.
        preparation: How the examples of the model are checked.

    Raises:
        ConfigError: It is something else, or the examples of the model are images.
    """
    if value is None or value is False:
        return value
    if value is not True and not isinstance(value, Mapping):
        raise ConfigError(
            f"class_names is {type_name(value)}; expected True, False, or the name of each class, such as "
            "{'card_lost': 'the card is lost'}"
        )
    if preparation.modality != TEXT:
        raise ConfigError(
            f"class_names makes examples of the names of classes, but the model takes "
            f"{MODALITIES[preparation.modality]}; expected class_names=False"
        )
    return value


def name_examples(
    classes: Sequence[Label], setting: bool | Mapping[Label, str] | None, preparation: ExampleChecks
) -> tuple[list[Example], list[Label]]:
    """Return the names of classes as labelled examples.

    Args:
        classes: The classes that have examples.
        setting: What :func:`check_class_names` returned.
        preparation: How the examples of the model are checked.

    Returns:
        Texts and labels, one of each class; those of a mapping that ``classes`` lacks are classes, too. Both empty if
        names are not used.

    Raises:
        DataError: A name is not a text, or a label is no word and has no name.
    """
    if setting is False or (setting is None and not preparation.class_names):
        return [], []
    given = dict(setting) if isinstance(setting, Mapping) else {}
    named = plain_labels([*classes, *(label for label in given if label not in classes)])
    for label in named:
        if label not in given and not isinstance(label, str):
            raise DataError(
                f"the class {label!r} has no name in words; expected one in class_names={{{label!r}: 'its name'}}, or "
                "class_names=False"
            )
    words = [given[label] if label in given else in_words(str(label)) for label in named]
    return preparation.checked(words, "class_names"), named
