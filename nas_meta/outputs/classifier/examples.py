"""From texts and images to a pool of examples, tokenised as the model was trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nas_meta.outputs.classifier.example_checks import checked_examples
from nas_meta.tasks.class_names import in_words
from nas_meta.tasks.examples import IMAGE, TEXT, Example, images_of, texts_of
from nas_meta.tasks.pool import Pool, TokenSequences
from nas_meta.tasks.prompts import fill_template
from nas_meta.tasks.tokenization import text_encoder


@dataclass(frozen=True)
class Preparation:
    """How the examples of a model are prepared.

    Attributes:
        modality: ``text``, ``image`` or ``image-text``.
        tokenizer: Tokenizer of the model; None for a model of images.
        max_tokens: Texts are cut to this many tokens.
        image_shape: Channels, height and width of an image; empty for a model of texts.
        template: Prompt template of an in-context learner; None for other learners.
        class_names: Whether the model was trained with the names of classes as support examples.
    """

    modality: str
    tokenizer: Any
    max_tokens: int
    image_shape: tuple[int, ...] = ()
    template: str | None = None
    class_names: bool = False

    def checked(self, examples: Iterable[Any], name: str) -> list[Example]:
        """Return examples that the model takes.

        Args:
            examples: Texts, images, or tuples of both.
            name: Name of the argument, for error messages.

        Returns:
            The examples.

        Raises:
            DataError: Something is not an example of the model's modality.
        """
        return checked_examples(examples, name, self.modality, self.image_shape)

    def pool(self, examples: Sequence[Example], labels: np.ndarray, classes: Sequence[str]) -> Pool:
        """Tokenise examples into a pool.

        Args:
            examples: What :meth:`checked` returned.
            labels: ``[examples]``, the class of each; 0 where it is not known.
            classes: Names of the classes.

        Returns:
            The pool, with the prompts of an in-context learner.
        """
        pixels = None if self.modality == TEXT else images_of(examples)
        if self.modality == IMAGE:
            return Pool(classes, (), labels, pixels=pixels)
        texts = texts_of(examples)
        ids, words = text_encoder(self.tokenizer, self.max_tokens)(texts)
        tokens, flat_words = TokenSequences.from_lists(ids), TokenSequences.from_lists(words)
        spoken = [in_words(name) for name in classes]
        pool = Pool(
            classes, texts, labels, tokens.tokens, tokens.offsets, flat_words.tokens, pixels=pixels, spoken=spoken
        )
        if self.template is None:
            return pool
        prompts = fill_template(pool, self.tokenizer, self.template, self.max_tokens)
        return replace(pool, prompts={self.template: prompts})
