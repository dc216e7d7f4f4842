"""The properties of a tokenizer that pre-training objectives and token stores use, as plain arrays."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabulary:
    """The V tokens of a tokenizer.

    Attributes:
        special: ``[V]``, True for tokens without text, such as ``[CLS]``.
        continues: ``[V]``, True for tokens that continue the word of the preceding token, such as ``##ing``.
        mask: Id of the mask token; None if there is none.
        pad: Id of the padding token; if there is none, of the end token, else 0.
        end: Id of the token that ends a text; None if there is none.
        key: Hash that identifies the tokenizer.
    """

    special: np.ndarray
    continues: np.ndarray
    mask: int | None
    pad: int
    end: int | None
    key: str

    @property
    def size(self) -> int:
        """Number of tokens V, including ids that no token uses."""
        return len(self.special)

    @cached_property
    def ordinary(self) -> np.ndarray:
        """Ids of the tokens that are not special."""
        return np.flatnonzero(~self.special)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """Return the vocabulary of a tokenizer.

    The spelling of the tokens shows which of them continue a word: WordPiece marks these (``##ing``), while byte-level
    BPE and SentencePiece mark the tokens that begin a word (``Ġ``, ``▁``). Without any marks, every token is a word.

    Args:
        tokenizer: Tokenizer of transformers.

    Raises:
        ConfigError: The tokenizer has no tokens.
    """
    ids = {i: token for token, i in tokenizer.get_vocab().items()}
    if not ids:
        raise ConfigError("the tokenizer has no tokens; expected at least one")
    size = max(max(ids) + 1, len(tokenizer))
    tokens = [ids.get(i, "") for i in range(size)]
    special = np.zeros(size, dtype=bool)
    special[[i for i in tokenizer.all_special_ids if i is not None and i < size]] = True
    ordinary = [t for t, s in zip(tokens, special, strict=True) if not s]
    if any(t.startswith("##") for t in ordinary):
        continues = [t.startswith("##") for t in tokens]
    else:
        begins = next((mark for mark in "Ġ▁" if any(t.startswith(mark) for t in ordinary)), "")
        continues = [not t.startswith(begins) for t in tokens]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    definition = backend.to_str() if backend is not None else json.dumps(tokens)
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or 0)
    key = hashlib.sha256(f"{definition}{special.nonzero()[0].tolist()}".encode()).hexdigest()[:32]
    return Vocabulary(special, np.array(continues) & ~special, tokenizer.mask_token_id, pad, end, key)
