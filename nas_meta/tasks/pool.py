"""The examples of one split, their texts tokenised once, and the three splits together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT, TEXT, images_of, pixel_values, texts_of
from nas_meta.tasks.source import SPLITS, SplitClasses

INPUTS = ("input_ids", "attention_mask")  # of a text, by the names that models give them


def _no_numbers() -> np.ndarray:
    return np.zeros(0, np.int32)


@dataclass(frozen=True)
class Pool:
    """The examples of one split: texts, images, or images with texts.

    Attributes:
        classes: class names.
        texts: every text; empty where examples are images alone.
        labels: ``[examples]``, the index of each example's class.
        tokens: all token ids, one text after the other.
        offsets: ``[texts + 1]``, where each text's tokens begin.
        words: for every token, which word of its text it belongs to; -1 for none (``[CLS]``).
        synonyms: token ids of the synonyms of a word, by the word's; empty unless augmentation asks for them.
        teacher: ``[examples, E]``, embeddings of the full model; only where distillation asks for them.
        pixels: every image, bytes ``[examples, channels, height, width]``; None where examples are texts alone.
        spoken: what each class is called in words; by default as in ``classes``.
        prompts: the texts and classes in prompts, by their template; only where a learner asks for them.

    Arrays are plain NumPy, so that Ray shares them between workers without a copy.
    """

    classes: Sequence[str]
    texts: Sequence[str]
    labels: np.ndarray
    tokens: np.ndarray = field(default_factory=_no_numbers)
    offsets: np.ndarray = field(default_factory=_no_numbers)
    words: np.ndarray = field(default_factory=_no_numbers)
    synonyms: Mapping[tuple[int, ...], Sequence[tuple[int, ...]]] = field(default_factory=dict)
    teacher: np.ndarray | None = None
    pixels: np.ndarray | None = None
    spoken: Sequence[str] = ()
    prompts: Mapping[str, Prompts] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.labels)

    @property
    def modality(self) -> str:
        """``text``, ``image`` or ``image-text``."""
        if self.pixels is None:
            return TEXT
        return IMAGE_TEXT if len(self.texts) else IMAGE

    @property
    def names(self) -> Sequence[str]:
        """What each class is called in words."""
        return self.spoken or self.classes

    @cached_property
    def members(self) -> list[np.ndarray]:
        """For each class, the indices of its examples."""
        order = np.argsort(self.labels, kind="stable")
        starts = np.searchsorted(self.labels[order], np.arange(len(self.classes) + 1))
        return np.split(order, starts)[1:-1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """``[examples]``, tokens in each text; 1 for an image alone, for all of them take the same."""
        return np.ones(len(self), np.int64) if self.modality == IMAGE else np.diff(self.offsets)

    def inputs(
        self, indices: np.ndarray, batch: Callable[[np.ndarray], tuple[np.ndarray, ...]] | None = None
    ) -> dict[str, np.ndarray]:
        """What models take of the given examples, by the names of transformers.

        Args:
            batch: stands in for :meth:`batch`.

        Returns:
            Of texts ``input_ids`` and ``attention_mask``, ``[len(indices), longest]``; of images ``pixel_values``,
            ``[len(indices), channels, height, width]`` from -1 to 1.
        """
        found: dict[str, np.ndarray] = {}
        if self.modality != IMAGE:
            found |= zip(INPUTS, (batch or self.batch)(indices), strict=True)
        if self.pixels is not None:
            found["pixel_values"] = pixel_values(self.pixels[indices])
        return found

    def part(self, modality: str) -> Pool:
        """The same examples as texts or images alone."""
        if modality == self.modality:
            return self
        if modality == TEXT:
            return replace(self, pixels=None)
        nothing = _no_numbers()
        return replace(self, texts=(), tokens=nothing, offsets=nothing, words=nothing, synonyms={})

    def words_of(self, index: int) -> list[tuple[tuple[int, ...], bool]]:
        """A text's tokens, those of one word together, and whether they are a word."""
        here = slice(self.offsets[index], self.offsets[index + 1])
        groups: list[tuple[list[int], bool]] = []
        last = -1
        for token, word in zip(self.tokens[here].tolist(), self.words[here].tolist(), strict=True):
            if word >= 0 and word == last:
                groups[-1][0].append(token)
            else:
                groups.append(([token], word >= 0))
            last = word
        return [(tuple(tokens), is_word) for tokens, is_word in groups]

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask of the given texts, both ``[len(indices), longest]``, padded with 0."""
        lengths = self.lengths[indices]
        mask = np.arange(lengths.max(initial=1))[None, :] < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = np.concatenate([self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in indices])
        return ids, mask.astype(np.int64)


@dataclass(frozen=True)
class Tasks:
    """The three splits and what was left out of them, in words."""

    pools: Mapping[str, Pool]
    report: Sequence[str] = ()

    def __getitem__(self, split: str) -> Pool:
        return self.pools[split]

    def part(self, modality: str) -> Tasks:
        """The same tasks with texts or images alone."""
        return replace(self, pools={name: pool.part(modality) for name, pool in self.pools.items()})


def tokenise(
    split: SplitClasses, encode: Callable[[list[str]], tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]]
) -> Tasks:
    """The pool of every split, its texts tokenised once and its images stacked.

    Args:
        encode: maps texts to token ids and to the word of each token; not asked where there are only images.
    """
    pools = {}
    for name in SPLITS:
        classes = split.splits[name]
        examples = [e for listed in classes.values() for e in listed]
        labels = np.repeat(np.arange(len(classes)), [len(v) for v in classes.values()])
        pixels = None if split.modality == TEXT else images_of(examples)
        if split.modality == IMAGE:
            pools[name] = Pool(list(classes), (), labels, pixels=pixels)
            continue
        texts = texts_of(examples)
        ids, words = encode(texts) if texts else ([], [])
        offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64)
        tokens = np.concatenate([np.asarray(i, dtype=np.int32) for i in ids]) if ids else _no_numbers()
        words_flat = np.concatenate([np.asarray(w, dtype=np.int32) for w in words]) if words else _no_numbers()
        pools[name] = Pool(list(classes), texts, labels, tokens, offsets, words_flat, pixels=pixels)
    return Tasks(pools, split.report)


@dataclass(frozen=True)
class Pieces:
    """Many sequences of token ids; plain arrays, so that Ray shares them between workers without a copy.

    Attributes:
        tokens: all of them, one after the other.
        offsets: ``[pieces + 1]``, where each begins.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Pieces:
        """These sequences."""
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
        return cls(np.fromiter((t for s in sequences for t in s), np.int32, offsets[-1]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Prompts:
    """A template with the texts and classes of a pool.

    Attributes:
        start: what every prompt begins with: the token for a beginning, where the tokenizer has one.
        texts: of each text, the template up to its label.
        labels: of each class, its name: what is scored.
        ends: of each class, its name and what is behind it in the template.
        content_free: as ``texts``, of :data:`CONTENT_FREE`.
    """

    start: np.ndarray
    texts: Pieces
    labels: Pieces
    ends: Pieces
    content_free: Pieces
