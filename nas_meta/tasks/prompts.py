r"""Prompts for in-context learning: a template filled in with texts and class names, and tokenised once in pieces.

The prompt of a query x with the support examples (x_1, y_1) ... (x_k, y_k) is the filled-in template of each support
example, one after the other, followed by the template of x up to its label. With the template
``text: {text}\nlabel: {label}\n\n``, each example consists of two pieces, ``text: x_i\nlabel:`` and
`` y_i\n\n``.

Invariant: the tokens of the pieces, concatenated, are the tokens of the whole prompt. So pieces are separated where
tokenizers of causal language models separate words: before the space in front of the label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.errors import ConfigError
from nas_meta.tasks.pool import Pool, Prompts, Tasks, TokenSequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Content-free inputs of Zhao et al. 2021, "Calibrate Before Use", section 5."""
LONGEST_TOKEN = 1000  # upper bound on the characters of a token: texts are cut by it before they are tokenised
CHUNK = 10_000  # texts per tokenizer call


def parts_of(template: str) -> tuple[str, str, str]:
    """Split a prompt template at its placeholders.

    Args:
        template: Template with ``{text}`` and, after it, ``{label}``.

    Returns:
        What precedes ``{text}``; what is between the placeholders, without the spaces before ``{label}``; and what
        follows ``{label}``.

    Raises:
        ValueError: The template does not contain one ``{text}`` and after it one ``{label}``, with something other than
            white space between them.
    """
    front, _, rest = template.partition("{text}")
    between, _, end = rest.partition("{label}")
    if template.count("{text}") != 1 or template.count("{label}") != 1 or not between.strip():
        raise ValueError(
            f"the template is {template!r}; expected {{text}} once and after it {{label}} once, with some text "
            "between them, such as 'text: {text}\\nlabel: {label}\\n\\n'"
        )
    return front, between.rstrip(" "), end


def with_prompts(tasks: Tasks, tokenizer: PreTrainedTokenizerBase, templates: Iterable[str], max_tokens: int) -> Tasks:
    """Add tokenised prompts to the pools of some tasks.

    Args:
        tasks: Tasks with texts.
        tokenizer: Tokenizer of a causal language model.
        templates: Prompt templates with ``{text}`` and ``{label}``.
        max_tokens: Texts are cut to this many tokens before they are filled in; the template's tokens do not count.

    Returns:
        The tasks, with prompts by template in every pool.

    Raises:
        ConfigError: The tokenizer merges the label with the preceding part of a template.
        ValueError: A template does not contain its two placeholders, as in :func:`parts_of`.
    """
    pools = {
        split: replace(pool, prompts={t: fill_template(pool, tokenizer, t, max_tokens) for t in templates})
        for split, pool in tasks.pools.items()
    }
    return replace(tasks, pools=pools)


def fill_template(pool: Pool, tokenizer: PreTrainedTokenizerBase, template: str, max_tokens: int) -> Prompts:
    """Fill a template in with the texts and classes of a pool, and tokenise it.

    Labels are tokenised together with the part of the template before them, whose tokens are then removed: a tokenizer
    that sees the label alone may encode it differently.

    Args:
        pool: Pool with texts.
        tokenizer: Tokenizer of a causal language model.
        template: Prompt template with ``{text}`` and ``{label}``.
        max_tokens: Texts are cut to this many tokens before they are filled in.

    Returns:
        The pieces from which prompts are concatenated.

    Raises:
        ConfigError: The tokenizer merges the label with the preceding part of the template.
    """
    front, between, end = parts_of(template)
    gap = template.partition("{text}")[2].partition("{label}")[0][len(between) :]

    def encode(texts: Sequence[str]) -> list[list[int]]:
        chunks = [list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        return [ids for chunk in chunks for ids in tokenizer(chunk, add_special_tokens=False)["input_ids"]]

    def encode_labels(labels: Sequence[str]) -> TokenSequences:
        (prefix,) = encode([between])
        prefixed = encode([between + gap + label for label in labels])
        for ids, label in zip(prefixed, labels, strict=True):
            if ids[: len(prefix)] != prefix or len(ids) == len(prefix):
                raise ConfigError(
                    f"learner.template is {template!r}, but the tokenizer merges the label {label.strip()!r} with the "
                    "text before it; expected a colon or a line break before {label}"
                )
        return TokenSequences.from_lists([ids[len(prefix) :] for ids in prefixed])

    def encode_texts(texts: Sequence[str]) -> TokenSequences:
        return TokenSequences.from_lists(encode([front + text + between for text in texts]))

    begin = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
    return Prompts(
        start=np.asarray(begin, dtype=np.int32),
        texts=encode_texts(_truncate(pool.texts, tokenizer, max_tokens)),
        labels=encode_labels(pool.names),
        ends=encode_labels([name + end for name in pool.names]),
        content_free=encode_texts(CONTENT_FREE),
    )


def _truncate(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[str]:
    """Cut each text after its first ``max_tokens`` tokens."""
    truncated = []
    for text in texts:
        # Tokenizers process a word as a whole, even one of many megabytes.
        text = text[: LONGEST_TOKEN * max_tokens]
        # A token is rarely shorter than a character, so a text with few characters has few tokens.
        if len(text) > max_tokens:
            encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
            ids = encoded["input_ids"]
            if len(ids) > max_tokens:
                fast = tokenizer.is_fast
                text = (
                    text[: encoded["offset_mapping"][max_tokens - 1][1]] if fast else tokenizer.decode(ids[:max_tokens])
                )
        truncated.append(text)
    return truncated
