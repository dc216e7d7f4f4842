"""Handwritten digits: 1,797 images of 8 × 8 pixels in ten classes (Alpaydin and Kaynak 1998; from scikit-learn)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT
from nas_meta.tasks.source import Classes, SourceOptions, TaskSource

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class DigitsOptions(SourceOptions):
    """Options of the digits."""

    fractions: tuple[float, float, float] = Field(
        (0.4, 0.3, 0.3), description="share of the ten classes in meta-train, meta-validation, meta-test: 4, 3 and 3"
    )


class Digits(TaskSource):
    """Handwritten digits, 8 × 8 grey pixels, ten classes of about 180 (offline, from scikit-learn); at most 3 ways."""

    Options = DigitsOptions
    modality = IMAGE

    def read(self) -> Classes:
        return {name: list(images) for name, images in digits().items()}


def digits() -> dict[str, np.ndarray]:
    """The images of each digit, bytes ``[images, 1, 8, 8]``; ink is bright."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.round(found.images * (255 / 16)).astype(np.uint8)[:, None]
    return {name: images[found.target == digit] for digit, name in enumerate(NAMES)}


class CaptionOptions(DigitsOptions):
    """Options of the digits with captions."""

    hidden: float = Field(0.5, ge=0, lt=1, description="share of the rows of an image that are covered")
    wrong: float = Field(0.2, ge=0, le=0.5, description="chance of each of the two statements of a caption to be wrong")
    noise_seed: int = Field(0, ge=0, description="seed of what is covered and what is wrong")


class DigitCaptions(TaskSource):
    """Digits half covered, with a caption that says with errors whether they are odd or even, small or large (offline).

    Neither is enough: several digits share a caption, and captions err; of an image, rows are blank.
    """

    Options = CaptionOptions
    modality = IMAGE_TEXT

    def read(self) -> Classes:
        rng = np.random.default_rng(self.options.noise_seed)
        return {
            name: [(self._covered(image, rng), self._caption(digit, rng)) for image in images]
            for digit, (name, images) in enumerate(digits().items())
        }

    def _covered(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The image with neighbouring rows, wherever they are, blank."""
        image, height = image.copy(), image.shape[1]
        rows = round(self.options.hidden * height)
        first = rng.integers(height - rows + 1)
        image[:, first : first + rows] = 0
        return image

    def _caption(self, digit: int, rng: np.random.Generator) -> str:
        odd, large = (bool(truth) ^ (rng.random() < self.options.wrong) for truth in (digit % 2, digit >= 5))
        words = ["odd" if odd else "even", "large" if large else "small"]
        return " and ".join(rng.permutation(words))
