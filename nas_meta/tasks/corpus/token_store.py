"""A corpus tokenised once to disk and memory-mapped, so it may be larger than memory.

Layout of the cache:

- ``tokens/KEY/tokens.bin``: the token ids of all texts, one text after the other, each with the tokenizer's special
  tokens; uint16 if the vocabulary has at most 65,536 tokens, else uint32.
- ``tokens/KEY/offsets.bin``: the start of each text, and the end of the last one; uint64.
- ``tokens/KEY/about.json``: the numbers of tokens and texts.
- ``contents/STAMP``: the hash of the texts of a corpus with that stamp, so an unchanged corpus is not read again.

KEY is a hash of the texts and the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.errors import DataError, NasMetaError
from nas_meta.tasks.cache import cache_folder
from nas_meta.tasks.corpus.corpus import Corpus
from nas_meta.tasks.corpus.vocabulary import Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 1000  # texts per tokenizer call
MAX_PICKLED_BYTES = 256 << 20  # size up to which a store is pickled with its tokens; a larger one only with its folder
FORMAT = 1  # version of the layout, part of KEY


@dataclass(frozen=True)
class TokenStore:
    """The memory-mapped tokens of a corpus.

    A pickled store contains its tokens if they take at most ``MAX_PICKLED_BYTES``; otherwise the process that unpickles
    it must have access to the same folder.

    Attributes:
        folder: Folder with the files.
        key: Hash of the texts and the tokenizer.
        vocabulary: Vocabulary of the tokenizer.
        count: Number of tokens.
        texts: Number of texts.
    """

    folder: Path
    key: str
    vocabulary: Vocabulary
    count: int
    texts: int

    @cached_property
    def tokens(self) -> np.ndarray:
        """``[count]``, token ids of all texts, one text after the other."""
        return self._mapped("tokens.bin", token_type(self.vocabulary), self.count)

    @cached_property
    def offsets(self) -> np.ndarray:
        """``[texts + 1]``, start of each text in :attr:`tokens`, and the end of the last text."""
        return self._mapped("offsets.bin", np.dtype(np.uint64), self.texts + 1)

    def _mapped(self, name: str, dtype: np.dtype, count: int) -> np.ndarray:
        try:
            return np.memmap(self.folder / name, dtype, "r", shape=(count,)).view(np.ndarray)
        except (OSError, ValueError) as error:
            raise NasMetaError(
                f"{self.folder / name} cannot be read ({error}); expected NAS_META_CACHE to be a folder that every "
                "node can read"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        state = {f: getattr(self, f) for f in self.__dataclass_fields__}
        if self.tokens.nbytes + self.offsets.nbytes <= MAX_PICKLED_BYTES:
            state |= {"tokens": self.tokens, "offsets": self.offsets}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def token_type(vocabulary: Vocabulary) -> np.dtype:
    """Return the narrowest unsigned integer type for the token ids of a vocabulary."""
    return np.dtype(np.uint16 if vocabulary.size <= 1 << 16 else np.uint32)


def tokenise_corpus(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, cache: Path | None = None) -> TokenStore:
    """Tokenise a corpus, or open its tokens in the cache.

    Args:
        corpus: Texts to tokenise.
        tokenizer: Tokenizer, which also adds its special tokens to every text.
        cache: Root folder of the cache; :func:`cache_folder` by default.

    Returns:
        The memory-mapped tokens.

    Raises:
        DataError: The corpus contains no text, or a part of it cannot be read.
        ConfigError: The tokenizer has no tokens.
    """
    cache = cache or cache_folder()
    vocabulary = vocabulary_of(tokenizer)
    content = corpus_hash(corpus, cache)
    key = hashlib.sha256(f"{FORMAT} {content} {vocabulary.key}".encode()).hexdigest()[:32]
    folder = cache / "tokens" / key
    if not (folder / "about.json").is_file():
        _write(corpus, tokenizer, vocabulary, folder)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return TokenStore(folder, key, vocabulary, about["tokens"], about["texts"])


def corpus_hash(corpus: Corpus, cache: Path | None = None) -> str:
    """Return the SHA-256 of the texts of a corpus, which is read only if its stamp is not in the cache.

    Args:
        corpus: Texts to hash.
        cache: Root folder of the cache; :func:`cache_folder` by default.

    Returns:
        Digest in hexadecimal.

    Raises:
        DataError: The corpus contains no text, or a part of it cannot be read.
    """
    stamp = hashlib.sha256(f"{corpus.stamp} {sorted(corpus.excluded)}".encode()).hexdigest()
    cached = (cache or cache_folder()) / "contents" / stamp
    if cached.is_file():
        return cached.read_text(encoding="utf-8")
    digest, empty = hashlib.sha256(), True
    for text in corpus:
        data, empty = text.encode(), False
        digest.update(len(data).to_bytes(8, "little") + data)
    if empty:
        raise DataError("the corpus contains no text; expected at least one line that is not empty")
    cached.parent.mkdir(parents=True, exist_ok=True)
    part = cached.with_name(f"{stamp}.{os.getpid()}.part")
    part.write_text(digest.hexdigest(), encoding="utf-8")
    part.rename(cached)
    return digest.hexdigest()


def _write(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, folder: Path) -> None:
    """Tokenise a corpus into a temporary folder, then rename it: other processes see all of it or nothing."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True, exist_ok=True)
    try:
        tokens = texts = 0
        with (part / "tokens.bin").open("wb") as ids, (part / "offsets.bin").open("wb") as offsets:
            offsets.write(np.zeros(1, np.uint64).tobytes())
            for lengths, flat in _encode(iter(corpus), tokenizer, vocabulary):
                ids.write(flat.astype(token_type(vocabulary)).tobytes())
                offsets.write((tokens + np.cumsum(lengths)).astype(np.uint64).tobytes())
                tokens, texts = tokens + len(flat), texts + len(lengths)
        (part / "about.json").write_text(json.dumps({"tokens": tokens, "texts": texts}), encoding="utf-8")
        try:
            part.rename(folder)
        except OSError:
            if not (folder / "about.json").is_file():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _encode(
    texts: Iterator[str], tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield lengths and concatenated tokens of ``CHUNK`` texts at a time; every text ends with the end token."""
    ending = [] if vocabulary.end is None else [vocabulary.end]
    while chunk := list(islice(texts, CHUNK)):
        rows = tokenizer(chunk, return_attention_mask=False, return_token_type_ids=False, verbose=False)["input_ids"]
        rows = [row if row[-1:] == ending else [*row, *ending] for row in rows]
        yield np.array([len(row) for row in rows]), np.array([i for row in rows for i in row], dtype=np.int64)
