"""Images with texts from the user's own files: JSON Lines with the path of an image in each row."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from nas_meta.errors import DataError
from nas_meta.tasks.examples import IMAGE_TEXT, Example
from nas_meta.tasks.sources.files import EncodedFiles, JSONLines
from nas_meta.tasks.sources.images import ImageOptions, read_image


class ImageTextOptions(EncodedFiles, ImageOptions):
    """Options of the task source ``image-text``."""

    image: str = Field("image", description="field with the path of the image, relative to the JSON Lines file")
    text: str = Field("text", description="field with the text")
    label: str = Field("label", description="field with the class")
    min_examples: int = Field(2, ge=2, description="classes with fewer distinct examples are left out")


class ImageText(JSONLines):
    """One JSON object per line, with the path of an image, a text and a label."""

    Options = ImageTextOptions
    modality = IMAGE_TEXT

    def example(self, row: dict, file: Path, where: str) -> Example:
        text, image = super().example(row, file, where), self.value(row, self.options.image, where)
        try:
            return read_image(file.parent / image, self.options.size, self.options.channels), text
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
