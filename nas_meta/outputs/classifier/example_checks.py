"""Checks of the examples that a user passes to a classifier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nas_meta.core.guard import type_name
from nas_meta.errors import DataError
from nas_meta.tasks.examples import IMAGE_TEXT, MODALITIES, TEXT, Example, mismatch, size


def checked_examples(examples: Iterable[Any], name: str, modality: str, image_shape: Sequence[int]) -> list[Example]:
    """Return examples that a model takes.

    Args:
        examples: Texts, images, or tuples of both.
        name: Name of the argument, for error messages.
        modality: ``text``, ``image`` or ``image-text``.
        image_shape: Channels, height and width of an image; ignored for texts.

    Returns:
        The examples.

    Raises:
        DataError: Something is not an example of the modality.
    """
    what = MODALITIES[modality]
    if isinstance(examples, str) or not isinstance(examples, Iterable):
        raise DataError(f"{name} is {type_name(examples)}; expected a list of {what}")
    listed = [str(e) if isinstance(e, np.str_) else e for e in examples]
    for i, example in enumerate(listed):
        if wrong := mismatch(example, modality):
            raise DataError(f"{name}[{i}] is {wrong[0][:200]}; the model takes {what}: expected {wrong[1]}")
        text = example if modality == TEXT else example[1] if modality == IMAGE_TEXT else "image"
        if not text.strip():
            raise DataError(f"{name}[{i}] is an empty text; expected text")
        image = example[0] if modality == IMAGE_TEXT else example
        if modality != TEXT and tuple(image.shape) != tuple(image_shape):
            raise DataError(
                f"{name}[{i}] is an image of {size(image.shape)} (channels, height, width); the model takes "
                f"{size(image_shape)}"
            )
    return listed
