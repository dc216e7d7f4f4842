"""The tokenizer of a search space, and task sources tokenised with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.core.guard import plugin_call, type_name
from nas_meta.errors import ConfigError, PluginError
from nas_meta.tasks.augmentation import synonym_table
from nas_meta.tasks.packaged_models import model_path
from nas_meta.tasks.pool import Tasks, tokenise
from nas_meta.tasks.source import TaskSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 10_000  # texts that are tokenised at once
LONGEST_TOKEN = 1000  # characters, by which a text is cut before its tokens are counted


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a folder, a hub name or ``starter:minilm``."""
    from transformers import AutoTokenizer

    try:
        # False, not left out: transformers would ask on the terminal whether to run a folder's own code.
        return AutoTokenizer.from_pretrained(model_path(name), trust_remote_code=False)
    except ConfigError:
        raise
    except Exception as error:  # a folder may hold anything, and so may what the libraries below raise
        raise ConfigError(f"the tokenizer '{name}' cannot be loaded: {error}") from error


def load_tasks(source: TaskSource, tokenizer: PreTrainedTokenizerBase | None, max_tokens: int) -> Tasks:
    """The source's splits, tokenised once, every text cut to ``max_tokens``; images alone need no tokenizer."""

    def encode(texts: list[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        # Some at a time, then as arrays: what a tokenizer says of a text takes kilobytes.
        parts = [encode_some(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        return [ids for part in parts for ids in part[0]], [words for part in parts for words in part[1]]

    def encode_some(texts: list[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        # A word of many megabytes would be looked at whole.
        texts = [text[: LONGEST_TOKEN * max_tokens] for text in texts]
        encoded = tokenizer(texts, truncation=True, max_length=max_tokens, padding=False)
        ids = encoded["input_ids"]
        if tokenizer.is_fast:
            words = [[-1 if w is None else w for w in encoded.word_ids(i)] for i in range(len(texts))]
        else:
            # Such a tokenizer does not tell: every token is a word of its own.
            special = set(tokenizer.all_special_ids)
            words = [[-1 if token in special else i for i, token in enumerate(text)] for text in ids]
        return [np.asarray(i, dtype=np.int32) for i in ids], [np.asarray(w, dtype=np.int32) for w in words]

    tasks = tokenise(source.load(), encode)
    with plugin_call(source, "spoken"):
        spoken = {split: [source.spoken(name) for name in pool.classes] for split, pool in tasks.pools.items()}
    for words in (w for names in spoken.values() for w in names):
        if not isinstance(words, str) or not words.strip():
            raise PluginError(
                f"{type(source).__name__}.spoken() returned {type_name(words)}; expected the words of a class"
            )
    return replace(tasks, pools={split: replace(pool, spoken=spoken[split]) for split, pool in tasks.pools.items()})


def with_synonyms(tasks: Tasks, tokenizer: PreTrainedTokenizerBase) -> Tasks:
    """The tasks with synonyms for the words of meta-train, for augmentation."""
    pool = tasks["meta-train"]

    def encode(words: Sequence[str]) -> list[list[int]]:
        return tokenizer(list(words), add_special_tokens=False)["input_ids"]

    table = synonym_table(pool, lambda word: tokenizer.decode(list(word)), encode)
    return replace(tasks, pools={**tasks.pools, "meta-train": replace(pool, synonyms=table)})
