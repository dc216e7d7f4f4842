"""Images from files, and folders of them; what prepares images for an exported model is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from nas_meta.core.files import is_encodable, regular_file
from nas_meta.errors import DataError
from nas_meta.tasks.examples import IMAGE
from nas_meta.tasks.source import SPLITS, Classes, TaskSource
from nas_meta.tasks.sources.files import SplitPaths

PROCESSOR = "preprocessor_config.json"
MOST_PIXELS = 100_000_000  # of one file: what would take more memory than a photograph is refused before it is decoded
MODES = {1: "L", 3: "RGB"}


def read_image(file: Path, size: int, channels: int) -> np.ndarray:
    """The image in a file as bytes ``[channels, size, size]``, resized with bilinear interpolation.

    Raises:
        DataError: it is no file, or no image that can be read whole.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(regular_file(file)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{file} is {image.width} × {image.height} pixels; expected at most {MOST_PIXELS:,}")
            if image.mode[0] in "IF":
                raise DataError(f"{file} has more than 8 bits a channel (mode {image.mode}); expected 8")
            image = image.convert(MODES[channels]).resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image).reshape(size, size, channels).transpose(2, 0, 1).copy()
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{file} is not an image; expected a format that Pillow reads, such as PNG or JPEG") from error
    except OSError as error:
        if error.strerror:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error
        raise DataError(f"{file} is a broken image ({error}); expected a whole one") from error
    except Exception as error:  # a file may hold anything, and so may what the decoders raise
        raise DataError(f"{file} is a broken image ({error}); expected a whole one") from error


def save_processor(shape: tuple[int, int, int], folder: Path) -> None:
    """Writes what ``AutoImageProcessor`` needs to prepare images of ``(channels, height, width)`` as here."""
    channels, height, width = shape
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True, "size": {"height": height, "width": width}, "resample": 2,  # bilinear
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5] * channels, "image_std": [0.5] * channels,
    }  # fmt: skip
    (folder / PROCESSOR).write_text(json.dumps(settings, indent=1), encoding="utf-8")


class ImageOptions(SplitPaths):
    """What sources of image files share."""

    size: int = Field(28, ge=1, le=1024, description="height and width that images are resized to, in pixels")
    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for colours")
    min_examples: int = Field(2, ge=2, description="classes with fewer distinct images are left out")


class ImageFolder(TaskSource):
    """A folder with a folder of images for each class, or such a folder for each of train, valid and test."""

    Options = ImageOptions
    modality = IMAGE

    def read(self) -> Classes | dict[str, Classes]:
        if self.options.path is not None:
            return self._classes(self.options.path)
        folders = (self.options.train, self.options.valid, self.options.test)
        return {split: self._classes(folder) for split, folder in zip(SPLITS, folders, strict=True)}

    def where(self) -> str:
        return str(self.options.path or self.options.train)

    def _classes(self, folder: Path) -> Classes:
        found: dict[str, list[np.ndarray]] = {}
        for inside in listed(folder):
            if not inside.is_dir():
                if inside.suffix.lower() in suffixes():
                    raise DataError(f"{inside} is in no class; expected images in a folder for each class")
                continue
            if not is_encodable(inside.name):
                raise DataError(f"{inside}: the folder's name is not UTF-8; expected text, the name of a class")
            files = list(listed(inside))
            if not files:
                raise DataError(f"{inside} is an empty class; expected images in it")
            found[inside.name] = [read_image(file, self.options.size, self.options.channels) for file in files]
        if not found:
            raise DataError(f"{folder} has no folders; expected one for each class")
        return found


def listed(folder: Path) -> Iterator[Path]:
    """What is in a folder, in the order of the names, without what is hidden.

    Raises:
        DataError: it cannot be read.
    """
    try:
        yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{folder} cannot be read: {reason}; expected a folder") from error


def suffixes() -> set[str]:
    """How the names of image files end."""
    from PIL import Image

    return set(Image.registered_extensions())
