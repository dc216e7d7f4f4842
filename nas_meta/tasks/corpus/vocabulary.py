"""What objectives and token files need to know of a tokenizer, as plain arrays."""

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
    """The tokens of a tokenizer.

    Attributes:
        special: ``[V]``, whether a token stands for no text (``[CLS]``).
        continues: ``[V]``, whether a token goes on with the word that the token before it belongs to.
        mask: the token that stands for a hidden one, if there is one.
        pad: the token that fills rows.
        end: the token that ends a text, if there is one.
        key: a hash by which one tokenizer is told from another.
    """

    special: np.ndarray
    continues: np.ndarray
    mask: int | None
    pad: int
    end: int | None
    key: str

    @property
    def size(self) -> int:
        """V."""
        return len(self.special)

    @cached_property
    def ordinary(self) -> np.ndarray:
        """The tokens that stand for text."""
        return np.flatnonzero(~self.special)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The vocabulary of a tokenizer.

    Which tokens continue a word is told by how its family writes them: WordPiece ``##ing``; byte-level BPE and
    SentencePiece mark those that begin one (``Ġ``, ``▁``). Where nothing is marked every token is a word.

    Raises:
        ConfigError: it has no tokens.
    """
    ids = {i: token for token, i in tokenizer.get_vocab().items()}
    if not ids:
        raise ConfigError("the tokenizer has no tokens; expected some")
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
    told = backend.to_str() if backend is not None else json.dumps(tokens)
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (end or 0)
    key = hashlib.sha256(f"{told}{special.nonzero()[0].tolist()}".encode()).hexdigest()[:32]
    return Vocabulary(special, np.array(continues) & ~special, tokenizer.mask_token_id, pad, end, key)
