"""A corpus tokenised once, as a file that is memory-mapped: it may be larger than memory.

A folder ``tokens/KEY`` of the cache holds ``tokens.bin`` (uint16 where the vocabulary allows it, else uint32; the texts
one after the other, each with the tokenizer's special tokens) and ``offsets.bin`` (uint64, where each text begins). The
key is a hash of the texts and of the tokenizer; what a corpus holds is remembered by its stamp, so that a corpus which
has not changed is not read again.
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
from nas_meta.tasks.corpus.corpus import Corpus
from nas_meta.tasks.corpus.vocabulary import Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 1000  # texts that are tokenised at once
TRAVELS = 256 << 20  # bytes of tokens that go to workers by themselves; of more only the folder's name does
FORMAT = 1


def cache_folder() -> Path:
    """Where tokenised corpora and trained tokenizers are kept: ``NAS_META_CACHE``, by default ``~/.cache/nas-meta``."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("NAS_META_CACHE") or Path(home) / "nas-meta")


@dataclass(frozen=True)
class TokenStore:
    """The tokens of a corpus.

    Sent to another process it takes its tokens along if they are few; else that process must see the same folder.

    Attributes:
        folder: where the files lie.
        key: a hash of what they hold.
        count: tokens.
        texts: texts.
    """

    folder: Path
    key: str
    vocabulary: Vocabulary
    count: int
    texts: int

    @cached_property
    def tokens(self) -> np.ndarray:
        """``[count]``, every token."""
        return self._mapped("tokens.bin", token_type(self.vocabulary), self.count)

    @cached_property
    def offsets(self) -> np.ndarray:
        """``[texts + 1]``, where each text begins."""
        return self._mapped("offsets.bin", np.dtype(np.uint64), self.texts + 1)

    def _mapped(self, name: str, kind: np.dtype, count: int) -> np.ndarray:
        try:
            return np.memmap(self.folder / name, kind, "r", shape=(count,)).view(np.ndarray)
        except (OSError, ValueError) as error:
            raise NasMetaError(
                f"{self.folder / name} cannot be read ({error}); expected a cache (NAS_META_CACHE) that every node sees"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        state = {f: getattr(self, f) for f in self.__dataclass_fields__}
        if self.tokens.nbytes + self.offsets.nbytes <= TRAVELS:
            state |= {"tokens": self.tokens, "offsets": self.offsets}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def token_type(vocabulary: Vocabulary) -> np.dtype:
    """The narrowest type of a token."""
    return np.dtype(np.uint16 if vocabulary.size <= 1 << 16 else np.uint32)


def tokenise_corpus(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, cache: Path | None = None) -> TokenStore:
    """The tokens of a corpus, from the cache if they are there.

    Raises:
        DataError: the corpus holds no text, or a part of it cannot be read.
    """
    cache = cache or cache_folder()
    vocabulary = vocabulary_of(tokenizer)
    content = content_of(corpus, cache)
    key = hashlib.sha256(f"{FORMAT} {content} {vocabulary.key}".encode()).hexdigest()[:32]
    folder = cache / "tokens" / key
    if not (folder / "about.json").is_file():
        _write(corpus, tokenizer, vocabulary, folder)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return TokenStore(folder, key, vocabulary, about["tokens"], about["texts"])


def content_of(corpus: Corpus, cache: Path | None = None) -> str:
    """A hash of the texts of a corpus; read only where its stamp is new.

    Raises:
        DataError: it holds no text, or a part of it cannot be read.
    """
    stamp = hashlib.sha256(f"{corpus.stamp} {sorted(corpus.excluded)}".encode()).hexdigest()
    known = (cache or cache_folder()) / "contents" / stamp
    if known.is_file():
        return known.read_text(encoding="utf-8")
    digest, empty = hashlib.sha256(), True
    for text in corpus:
        data, empty = text.encode(), False
        digest.update(len(data).to_bytes(8, "little") + data)
    if empty:
        raise DataError("the corpus holds no text; expected at least one line that is not empty")
    known.parent.mkdir(parents=True, exist_ok=True)
    part = known.with_name(f"{stamp}.{os.getpid()}.part")
    part.write_text(digest.hexdigest(), encoding="utf-8")
    part.rename(known)
    return digest.hexdigest()


def _write(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, folder: Path) -> None:
    """Tokenises into a folder beside, which then takes its place at once: it is never seen half."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True, exist_ok=True)
    try:
        tokens = texts = 0
        with (part / "tokens.bin").open("wb") as ids, (part / "offsets.bin").open("wb") as offsets:
            offsets.write(np.zeros(1, np.uint64).tobytes())
            for lengths, flat in _encoded(iter(corpus), tokenizer, vocabulary):
                ids.write(flat.astype(token_type(vocabulary)).tobytes())
                offsets.write((tokens + np.cumsum(lengths)).astype(np.uint64).tobytes())
                tokens, texts = tokens + len(flat), texts + len(lengths)
        (part / "about.json").write_text(json.dumps({"tokens": tokens, "texts": texts}), encoding="utf-8")
        try:
            part.rename(folder)
        except OSError:
            if not (folder / "about.json").is_file():  # else another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _encoded(
    texts: Iterator[str], tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Lengths and tokens of some texts at a time; every text ends with the token that ends texts."""
    ending = [] if vocabulary.end is None else [vocabulary.end]
    while some := list(islice(texts, CHUNK)):
        rows = tokenizer(some, return_attention_mask=False, return_token_type_ids=False, verbose=False)["input_ids"]
        rows = [row if row[-1:] == ending else [*row, *ending] for row in rows]
        yield np.array([len(row) for row in rows]), np.array([i for row in rows for i in row], dtype=np.int64)
