"""The tokenizer of a search space, and task sources tokenised with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nas_meta.errors import ConfigError
from nas_meta.tasks.augmentation import synonym_table
from nas_meta.tasks.pool import Tasks, tokenise
from nas_meta.tasks.source import TaskSource
from nas_meta.tasks.starter import model_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer from a folder, a hub name or ``starter:minilm``."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_path(name))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the tokenizer '{name}' cannot be loaded: {str(error).splitlines()[0]}") from error


def load_tasks(source: TaskSource, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Tasks:
    """The source's splits, tokenised once, every text cut to ``max_tokens``."""

    def encode(texts: list[str]) -> tuple[list[list[int]], list[list[int]]]:
        encoded = tokenizer(texts, truncation=True, max_length=max_tokens, padding=False)
        ids = encoded["input_ids"]
        if not tokenizer.is_fast:
            # Such a tokenizer does not tell: every token is a word of its own.
            special = set(tokenizer.all_special_ids)
            return ids, [[-1 if token in special else i for i, token in enumerate(text)] for text in ids]
        return ids, [[-1 if w is None else w for w in encoded.word_ids(i)] for i in range(len(texts))]

    return tokenise(source.load(), encode)


def with_synonyms(tasks: Tasks, tokenizer: PreTrainedTokenizerBase) -> Tasks:
    """The tasks with synonyms for the words of meta-train, for augmentation."""
    pool = tasks["meta-train"]

    def encode(words: Sequence[str]) -> list[list[int]]:
        return tokenizer(list(words), add_special_tokens=False)["input_ids"]

    table = synonym_table(pool, lambda word: tokenizer.decode(list(word)), encode)
    return replace(tasks, pools={**tasks.pools, "meta-train": replace(pool, synonyms=table)})
