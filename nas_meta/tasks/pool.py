"""The examples of each split as plain arrays, with texts tokenised once.

Plain NumPy arrays can be shared between Ray workers without a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT, TEXT, images_of, pixel_values, texts_of
from nas_meta.tasks.source import SPLITS, SplitClasses

INPUTS = ("input_ids", "attention_mask")  # names that transformers gives the inputs of a text model


def _no_tokens() -> np.ndarray:
    """Return an empty array of token ids."""
    return np.zeros(0, np.int32)


@dataclass(frozen=True)
class Pool:
    """The examples of one split: texts, images, or images with texts.

    Attributes:
        classes: Class names.
        texts: One text per example; empty if examples are images without texts.
        labels: ``[examples]``, index of each example's class in ``classes``.
        tokens: Token ids of all texts, one text after the other.
        offsets: ``[texts + 1]``, start of each text in ``tokens``, and the end of the last text.
        words: Index of the word that each token belongs to, counted within its text; -1 for tokens that belong to no
            word, such as ``[CLS]``.
        synonyms: Token ids of the synonyms of each word, by the word's token ids; empty unless augmentation uses them.
        teacher: ``[examples, E]``, embeddings of the full model; None unless distillation uses them.
        pixels: Bytes ``[examples, channels, height, width]``; None if examples are texts without images.
        spoken: Each class in words; empty if the class names serve as words.
        prompts: Tokenised prompts by their template; empty unless the learner uses prompts.
        groups: Group of each class, in the order of ``classes``; empty if an episode may take any classes.
        name_rows: ``[classes]``, index of the example that is the name of each class in words, which every episode has
            in its support set and never as a query; None if names are not used.
    """

    classes: Sequence[str]
    texts: Sequence[str]
    labels: np.ndarray
    tokens: np.ndarray = field(default_factory=_no_tokens)
    offsets: np.ndarray = field(default_factory=_no_tokens)
    words: np.ndarray = field(default_factory=_no_tokens)
    synonyms: Mapping[tuple[int, ...], Sequence[tuple[int, ...]]] = field(default_factory=dict)
    teacher: np.ndarray | None = None
    pixels: np.ndarray | None = None
    spoken: Sequence[str] = ()
    prompts: Mapping[str, Prompts] = field(default_factory=dict)
    groups: Sequence[str] = ()
    name_rows: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of examples, class names included."""
        return len(self.labels)

    @property
    def modality(self) -> str:
        """Kind of the examples: ``text``, ``image`` or ``image-text``."""
        if self.pixels is None:
            return TEXT
        return IMAGE_TEXT if len(self.texts) else IMAGE

    @property
    def names(self) -> Sequence[str]:
        """Each class in words, in the order of ``classes``."""
        return self.spoken or self.classes

    @cached_property
    def members(self) -> list[np.ndarray]:
        """Indices of the examples of each class, in the order of ``classes``, without its name."""
        labels = self.labels
        if self.name_rows is not None:
            labels = labels.copy()
            labels[self.name_rows] = -1
        order = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[order], np.arange(len(self.classes) + 1))
        return np.split(order, starts)[1:-1]

    @property
    def examples(self) -> np.ndarray:
        """Indices of all examples that are not class names, ascending."""
        every = np.arange(len(self))
        return every if self.name_rows is None else np.setdiff1d(every, self.name_rows)

    def with_names(self, support: np.ndarray) -> np.ndarray:
        """Add the names of the classes to a support set, if names are used.

        Args:
            support: ``[N, K]``, indices of the support examples; row n holds those of one class.

        Returns:
            ``[N, K + 1]``, the name of each class last; ``support`` itself if names are not used.
        """
        if self.name_rows is None:
            return support
        return np.concatenate([support, self.name_rows[self.labels[support[:, 0]]][:, None]], 1)

    @cached_property
    def choices(self) -> list[np.ndarray]:
        """Indices of the classes of each group, sorted by its name; those of all classes if there are no groups."""
        if not self.groups:
            return [np.arange(len(self.classes))]
        groups = np.asarray(self.groups)
        return [np.flatnonzero(groups == group) for group in sorted(set(self.groups))]

    @property
    def most_ways(self) -> int:
        """The largest number of classes of an episode."""
        return max(map(len, self.choices))

    @cached_property
    def lengths(self) -> np.ndarray:
        """``[examples]``, number of tokens of each text; 1 for images without texts, which all cost the same."""
        return np.ones(len(self), np.int64) if self.modality == IMAGE else np.diff(self.offsets)

    def inputs(
        self, indices: np.ndarray, batch: Callable[[np.ndarray], tuple[np.ndarray, ...]] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the model inputs of some examples.

        Args:
            indices: ``[B]``, indices of the examples.
            batch: Replacement for :meth:`batch`, such as one that adds noise to the texts.

        Returns:
            Arrays by the argument names of transformers models: for texts ``input_ids`` and ``attention_mask``,
            ``[B, T]`` with T tokens in the longest text; for images ``pixel_values``, ``[B, channels, height, width]``
            in [-1, 1].
        """
        inputs: dict[str, np.ndarray] = {}
        if self.modality != IMAGE:
            inputs |= zip(INPUTS, (batch or self.batch)(indices), strict=True)
        if self.pixels is not None:
            inputs["pixel_values"] = pixel_values(self.pixels[indices])
        return inputs

    def part(self, modality: str) -> Pool:
        """Return a pool with only the texts or only the images of the examples.

        Args:
            modality: ``text``, ``image``, or the modality of this pool, which returns the pool itself.
        """
        if modality == self.modality:
            return self
        if modality == TEXT:
            return replace(self, pixels=None)
        empty = _no_tokens()
        return replace(self, texts=(), tokens=empty, offsets=empty, words=empty, synonyms={})

    def labels_alone(self, rows: np.ndarray, classes: np.ndarray | None = None) -> tuple[Pool, np.ndarray]:
        """Return some examples as a pool without texts and images, for episodes of embeddings.

        Args:
            rows: ``[examples]``, indices of examples that are not class names.
            classes: Indices of the classes that the examples belong to, ascending; None keeps all classes.

        Returns:
            The pool, with the names of its classes last if names are used, and the index in this pool of each of its
            examples.
        """
        classes = np.arange(len(self.classes)) if classes is None else classes
        names = None
        if self.name_rows is not None:
            names = len(rows) + np.arange(len(classes))
            rows = np.concatenate([rows, self.name_rows[classes]])
        labels = np.searchsorted(classes, self.labels[rows])
        groups = [self.groups[c] for c in classes] if self.groups else ()
        kept = Pool([self.classes[c] for c in classes], [""] * len(rows), labels, groups=groups, name_rows=names)
        return kept, rows

    def words_of(self, index: int) -> list[tuple[tuple[int, ...], bool]]:
        """Group the tokens of a text by word.

        Args:
            index: Index of the text.

        Returns:
            The groups in the order of the text, each with True if it is a word. A token that belongs to no word, such
            as ``[CLS]``, is a group of one token.
        """
        span = slice(self.offsets[index], self.offsets[index + 1])
        groups: list[tuple[list[int], bool]] = []
        last = -1
        for token, word in zip(self.tokens[span].tolist(), self.words[span].tolist(), strict=True):
            if word >= 0 and word == last:
                groups[-1][0].append(token)
            else:
                groups.append(([token], word >= 0))
            last = word
        return [(tuple(tokens), is_word) for tokens, is_word in groups]

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pad some texts to one length.

        Args:
            indices: ``[B]``, indices of the texts.

        Returns:
            Token ids and attention mask, both ``[B, T]`` with T tokens in the longest text. Padding is 0 in both.
        """
        lengths = self.lengths[indices]
        mask = np.arange(lengths.max(initial=1))[None, :] < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = np.concatenate([self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in indices])
        return ids, mask.astype(np.int64)


@dataclass(frozen=True)
class Tasks:
    """The pools of the three splits.

    Attributes:
        pools: Pool of each split, by the names in :data:`nas_meta.tasks.source.SPLITS`.
        report: One sentence for each reason why examples or classes were left out.
    """

    pools: Mapping[str, Pool]
    report: Sequence[str] = ()

    def __getitem__(self, split: str) -> Pool:
        return self.pools[split]

    def part(self, modality: str) -> Tasks:
        """Return tasks with only the texts or only the images of the examples.

        Args:
            modality: ``text`` or ``image``.
        """
        return replace(self, pools={name: pool.part(modality) for name, pool in self.pools.items()})


def tokenise(
    split: SplitClasses, encode: Callable[[list[str]], tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]]
) -> Tasks:
    """Build the pool of every split: tokenise its texts and stack its images.

    Args:
        split: Examples by class for each split.
        encode: Function from texts to the token ids of each text and the word index of each token (-1 for no word);
            never called for images without texts.

    Returns:
        One pool per split, with the examples class by class.
    """
    pools = {}
    for name in SPLITS:
        classes = split.splits[name]
        examples = [e for members in classes.values() for e in members]
        labels = np.repeat(np.arange(len(classes)), [len(v) for v in classes.values()])
        groups = [split.groups[name] for name in classes] if split.groups else ()
        pixels = None if split.modality == TEXT else images_of(examples)
        if split.modality == IMAGE:
            pools[name] = Pool(list(classes), (), labels, pixels=pixels, groups=groups)
            continue
        texts = texts_of(examples)
        ids, words = encode(texts) if texts else ([], [])
        offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64)
        tokens = np.concatenate([np.asarray(i, dtype=np.int32) for i in ids]) if ids else _no_tokens()
        words_flat = np.concatenate([np.asarray(w, dtype=np.int32) for w in words]) if words else _no_tokens()
        pools[name] = Pool(list(classes), texts, labels, tokens, offsets, words_flat, pixels=pixels, groups=groups)
    return Tasks(pools, split.report)


@dataclass(frozen=True)
class TokenSequences:
    """Sequences of token ids in one flat array; ``sequences[i]`` is the i-th as an array.

    Attributes:
        tokens: Token ids of all sequences, one after the other.
        offsets: ``[sequences + 1]``, start of each sequence in ``tokens``, and the end of the last sequence.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lists(cls, sequences: Sequence[Sequence[int]]) -> TokenSequences:
        """Concatenate sequences of token ids.

        Args:
            sequences: Token ids of each sequence.
        """
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
        return cls(np.fromiter((t for s in sequences for t in s), np.int32, offsets[-1]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Prompts:
    """A prompt template, filled in with the texts and classes of a pool and tokenised in pieces.

    The tokens of a prompt are ``start``, then ``texts[i]`` and ``ends[class of i]`` for each support example i, then
    ``texts[q]`` for the query q. The model scores ``labels[c]`` after it for each class c.

    Attributes:
        start: Tokens that begin every prompt: the tokenizer's begin-of-sequence token if it adds one, else none.
        texts: For each text, the template up to the label.
        labels: For each class, its name in words.
        ends: For each class, its name in words and the rest of the template.
        content_free: Like ``texts``, for the inputs in :data:`nas_meta.tasks.prompts.CONTENT_FREE`.
    """

    start: np.ndarray
    texts: TokenSequences
    labels: TokenSequences
    ends: TokenSequences
    content_free: TokenSequences
