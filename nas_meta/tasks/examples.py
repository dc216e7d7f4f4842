"""What an example is: a text, an image, or an image with a text.

A text is a string. An image is an array of bytes (``uint8``) ``[channels, height, width]``; models see it from -1 to 1,
as the processors of most vision transformers prepare it. An image with a text is a tuple of the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np

from nas_meta.core.files import is_encodable
from nas_meta.core.guard import type_name

TEXT, IMAGE, IMAGE_TEXT = "text", "image", "image-text"
MODALITIES = {TEXT: "texts", IMAGE: "images", IMAGE_TEXT: "images with texts"}

Example: TypeAlias = "str | np.ndarray | tuple[np.ndarray, str]"


def problem(example: Any, modality: str) -> tuple[str, str] | None:
    """What something is that is no example of a modality, and what was expected; None where it is one."""
    if modality == IMAGE_TEXT:
        if not isinstance(example, tuple) or len(example) != 2:
            return type_name(example), "a tuple of an image and a text"
        return problem(example[0], IMAGE) or problem(example[1], TEXT)
    if modality == TEXT:
        good = isinstance(example, str) and is_encodable(example)
        return None if good else (f"{type_name(example)} {example!r}", "text")
    expected = "an array of uint8 [channels, height, width]"
    if not isinstance(example, np.ndarray):
        return type_name(example), expected
    if example.dtype != np.uint8 or example.ndim != 3 or not example.size:
        return f"an array of {example.dtype} {list(example.shape)}", expected
    return None


def distinct(examples: Sequence[Example]) -> dict[Hashable, Example]:
    """Examples by their content, equal ones once, empty texts left out; the spaces around texts do not count."""
    found: dict[Hashable, Example] = {}
    for example in examples:
        example = example.strip() if isinstance(example, str) else example
        if not isinstance(example, str) or example:
            found.setdefault(content(example), example)
    return found


def content(example: Example) -> Hashable:
    """What equal examples have in common, and no others."""
    if isinstance(example, tuple):
        return content(example[0]), content(example[1])
    if isinstance(example, np.ndarray):
        return example.shape, hashlib.sha256(example.tobytes()).digest()
    return example.strip()


def images_of(examples: Sequence[Example]) -> np.ndarray:
    """The images of examples, which have one shape, as ``[examples, channels, height, width]``."""
    images = [example[0] if isinstance(example, tuple) else example for example in examples]
    return np.stack(images) if images else np.zeros((0, 0, 0, 0), np.uint8)


def texts_of(examples: Sequence[Example]) -> list[str]:
    """The texts of examples."""
    return [example[1] if isinstance(example, tuple) else example for example in examples]


def pixel_values(images: np.ndarray) -> np.ndarray:
    """What models see of images: bytes as numbers from -1 to 1 (rescaled to [0, 1], mean and deviation 0.5)."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def size(shape: Sequence[int]) -> str:
    """A shape in words: ``1×8×8``."""
    return "×".join(map(str, shape))
