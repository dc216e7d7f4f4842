"""Images from folders, and the image processor that prepares images in the same way for an exported model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from nas_meta.core.files import is_encodable, regular_file, why_unreadable
from nas_meta.errors import DataError
from nas_meta.tasks.examples import IMAGE
from nas_meta.tasks.source import SPLITS, Classes, TaskSource
from nas_meta.tasks.sources.files import SplitPaths

PROCESSOR = "preprocessor_config.json"
MOST_PIXELS = 100_000_000  # per file: larger images are refused before they are decoded, which would take much memory
MODES = {1: "L", 3: "RGB"}  # Pillow's mode by the number of channels


def read_image(file: Path, size: int, channels: int) -> np.ndarray:
    """Read an image and resize it with bilinear interpolation.

    Args:
        file: Image file in a format that Pillow reads.
        size: Height and width of the result, in pixels.
        channels: 1 for grey, 3 for RGB.

    Returns:
        Bytes ``[channels, size, size]``.

    Raises:
        DataError: The file cannot be read, is not a complete image, has more than 8 bits per channel, or has more than
            ``MOST_PIXELS`` pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(regular_file(file)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{file} has {image.width} × {image.height} pixels; expected at most {MOST_PIXELS:,}")
            if image.mode[0] in "IF":
                raise DataError(f"{file} has more than 8 bits per channel (mode {image.mode}); expected 8")
            image = image.convert(MODES[channels]).resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image).reshape(size, size, channels).transpose(2, 0, 1).copy()
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{file} is not an image; expected a format that Pillow reads, such as PNG or JPEG") from error
    except OSError as error:
        if error.strerror:
            raise DataError(f"{file} cannot be read: {why_unreadable(file, error)}") from error
        raise DataError(f"{file} is a broken image ({error}); expected a complete image") from error
    except Exception as error:  # a malformed file may raise any exception in the decoders
        raise DataError(f"{file} is a broken image ({error}); expected a complete image") from error


def save_processor(shape: tuple[int, int, int], folder: Path) -> None:
    """Write the settings with which ``AutoImageProcessor`` prepares images as during the search.

    Args:
        shape: Channels, height and width of the images.
        folder: Existing folder, into which ``preprocessor_config.json`` is written.
    """
    channels, height, width = shape
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True, "size": {"height": height, "width": width}, "resample": 2,  # bilinear
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.5] * channels, "image_std": [0.5] * channels,
    }  # fmt: skip
    (folder / PROCESSOR).write_text(json.dumps(settings, indent=1), encoding="utf-8")


class ImageOptions(SplitPaths):
    """Options of every task source that reads image files."""

    size: int = Field(28, ge=1, le=1024, description="height and width that images are resized to, in pixels")
    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for colour")
    min_examples: int = Field(2, ge=2, description="classes with fewer distinct images are left out")


class ImageFolder(TaskSource):
    """A folder with one folder of images per class, or such a folder for each of train, valid and test."""

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
        """Read the images of every class folder in a folder."""
        classes: dict[str, list[np.ndarray]] = {}
        for entry in visible_entries(folder):
            if not entry.is_dir():
                if entry.suffix.lower() in image_suffixes():
                    raise DataError(f"{entry} is not in a class folder; expected one folder of images per class")
                continue
            if not is_encodable(entry.name):
                raise DataError(f"{entry}: the folder name is not UTF-8; expected a class name in UTF-8")
            files = list(visible_entries(entry))
            if not files:
                raise DataError(f"{entry} is an empty folder; expected the images of a class")
            classes[entry.name] = [read_image(file, self.options.size, self.options.channels) for file in files]
        if not classes:
            raise DataError(f"{folder} contains no folders; expected one folder of images per class")
        return classes


def visible_entries(folder: Path) -> Iterator[Path]:
    """Yield the files and folders in a folder, sorted by name, except hidden ones.

    Args:
        folder: Folder to list.

    Raises:
        DataError: The folder cannot be read.
    """
    try:
        yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {why_unreadable(folder, error)}; expected a folder") from error
    except ValueError as error:
        raise DataError(f"{folder} cannot be read: {error}; expected a folder") from error


def image_suffixes() -> set[str]:
    """Return the suffixes of the image formats that Pillow knows, such as ``.png``."""
    from PIL import Image

    return set(Image.registered_extensions())
