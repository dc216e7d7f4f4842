"""What an example is: a text, an image, or an image with a text.

A text is a string. An image is a ``uint8`` array ``[channels, height, width]``; models see it scaled to [-1, 1], as the
processors of most vision transformers prepare it. An image with a text is a tuple of the two.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np

from nas_meta.core.files import is_encodable
from nas_meta.core.guard import type_name

TEXT, IMAGE, IMAGE_TEXT = "text", "image", "image-text"
MODALITIES = {TEXT: "texts", IMAGE: "images", IMAGE_TEXT: "images with texts"}
SINGULAR = {TEXT: "text", IMAGE: "image", IMAGE_TEXT: "image with text"}

Example: TypeAlias = "str | np.ndarray | tuple[np.ndarray, str]"


def mismatch(example: Any, modality: str) -> tuple[str, str] | None:
    """Compare a value with what a modality expects of an example.

    Args:
        example: Value that a task source returned as an example.
        modality: ``text``, ``image`` or ``image-text``.

    Returns:
        None if the value is a valid example; else two phrases for an error message: what the value is, and what was
        expected.
    """
    if modality == IMAGE_TEXT:
        if not isinstance(example, tuple) or len(example) != 2:
            return type_name(example), "a tuple of an image and a text"
        return mismatch(example[0], IMAGE) or mismatch(example[1], TEXT)
    if modality == TEXT:
        valid = isinstance(example, str) and is_encodable(example)
        return None if valid else (f"{type_name(example)} {example!r}", "a string that UTF-8 can encode")
    expected = "an array of uint8 [channels, height, width]"
    if not isinstance(example, np.ndarray):
        return type_name(example), expected
    if example.dtype != np.uint8 or example.ndim != 3 or not example.size:
        return f"an array of {example.dtype} {list(example.shape)}", expected
    return None


def normalised(text: str) -> str:
    """Return a text in Unicode normalisation form C, without white space around it.

    Keyboards and file systems write an accented letter as one character or as two; both look the same.
    """
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()


def deduplicate(examples: Sequence[Example]) -> dict[Hashable, Example]:
    """Return the distinct examples by their content key, in the order of their first occurrence.

    Args:
        examples: Examples of one class. Texts are normalised, and empty texts are left out.

    Returns:
        One example for each value of :func:`content_key`.
    """
    unique: dict[Hashable, Example] = {}
    for example in examples:
        example = normalised(example) if isinstance(example, str) else example
        if not isinstance(example, str) or example:
            unique.setdefault(content_key(example), example)
    return unique


def content_key(example: Example) -> Hashable:
    """Return a key that two examples share only if their contents are equal.

    Args:
        example: Text, image, or image with a text. White space around a text, and its Unicode form, are ignored.

    Returns:
        The normalised text; for an image its shape and SHA-256 digest; for an image with a text the pair of both keys.
    """
    if isinstance(example, tuple):
        return content_key(example[0]), content_key(example[1])
    if isinstance(example, np.ndarray):
        return example.shape, hashlib.sha256(example.tobytes()).digest()
    return normalised(example)


def images_of(examples: Sequence[Example]) -> np.ndarray:
    """Return the images of examples as one array.

    Args:
        examples: Images, or images with texts, all of one shape.

    Returns:
        Bytes ``[examples, channels, height, width]``.
    """
    images = [example[0] if isinstance(example, tuple) else example for example in examples]
    return np.stack(images) if images else np.zeros((0, 0, 0, 0), np.uint8)


def texts_of(examples: Sequence[Example]) -> list[str]:
    """Return the texts of examples, which are texts or images with texts."""
    return [example[1] if isinstance(example, tuple) else example for example in examples]


def pixel_values(images: np.ndarray) -> np.ndarray:
    """Convert images to the numbers that models see.

    Args:
        images: Bytes of any shape.

    Returns:
        Float32 array of the same shape with values in [-1, 1]: bytes rescaled to [0, 1], then normalised with mean 0.5
        and standard deviation 0.5.
    """
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def size(shape: Sequence[int]) -> str:
    """Format a shape for messages, such as ``1×8×8``."""
    return "×".join(map(str, shape))
