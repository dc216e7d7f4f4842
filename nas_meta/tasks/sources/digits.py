"""Handwritten digits: 1,797 images of 8 × 8 pixels in ten classes (Alpaydin and Kaynak 1998), from scikit-learn."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT
from nas_meta.tasks.source import Classes, SourceOptions, TaskSource

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class DigitsOptions(SourceOptions):
    """Options of the task source ``digits``."""

    fractions: tuple[float, float, float] = Field(
        (0.4, 0.3, 0.3),
        description="shares of the ten classes in meta-train, meta-validation and meta-test (by default 4, 3 and 3)",
    )


class Digits(TaskSource):
    """Handwritten digits of 8 × 8 grey pixels, about 180 per class (offline, from scikit-learn); at most 3 ways."""

    Options = DigitsOptions
    modality = IMAGE

    def read(self) -> Classes:
        return {name: list(images) for name, images in digits().items()}


def digits() -> dict[str, np.ndarray]:
    """Return the images of each digit.

    Returns:
        Bytes ``[images, 1, 8, 8]`` by the name of the digit; ink is bright.
    """
    from sklearn.datasets import load_digits

    dataset = load_digits()
    images = np.round(dataset.images * (255 / 16)).astype(np.uint8)[:, None]
    return {name: images[dataset.target == digit] for digit, name in enumerate(NAMES)}


class CaptionOptions(DigitsOptions):
    """Options of the task source ``digit-captions``."""

    hidden: float = Field(0.5, ge=0, lt=1, description="share of the rows of an image that are covered, in [0, 1)")
    wrong: float = Field(
        0.2, ge=0, le=0.5, description="probability that a statement is wrong, for each of the two in a caption"
    )
    noise_seed: int = Field(0, ge=0, description="seed of the covered rows and the wrong statements")


class DigitCaptions(TaskSource):
    """Half-covered digits with captions, partly wrong, such as "odd and small" (offline, from scikit-learn).

    Neither input identifies a digit alone: rows of the image are blank, several digits share a caption, and a caption
    may be wrong.
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
        """Return an image with a random block of adjacent rows set to 0."""
        image, height = image.copy(), image.shape[1]
        rows = round(self.options.hidden * height)
        first = rng.integers(height - rows + 1)
        image[:, first : first + rows] = 0
        return image

    def _caption(self, digit: int, rng: np.random.Generator) -> str:
        """Return two statements in random order, odd or even and small or large, each possibly wrong."""
        odd, large = (bool(truth) ^ (rng.random() < self.options.wrong) for truth in (digit % 2, digit >= 5))
        words = ["odd" if odd else "even", "large" if large else "small"]
        return " and ".join(rng.permutation(words))
