"""The texts and class names of a task as the pieces of prompts: a template filled in and tokenised once.

A prompt for the query x with the examples (x_1, y_1) ... (x_k, y_k) is the template with each of them, one after the
other, and for x the template up to its label. Pieces are tokenised so that together they are the tokens of the whole:
they meet where a tokenizer of causal language models splits words, in front of the space before a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.errors import ConfigError
from nas_meta.tasks.pool import Pieces, Pool, Prompts, Tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTENT_FREE = ("N/A", "[MASK]", "")
"""The inputs without content of Zhao et al. 2021, "Calibrate Before Use", section 5."""
LONGEST_TOKEN = 1000  # characters, by which a text is cut before its tokens are counted
CHUNK = 10_000  # texts that are tokenised at once


def parts_of(template: str) -> tuple[str, str, str]:
    """What is in front of the text, between it and the space before the label, and behind the label.

    Raises:
        ValueError: the template has not one ``{text}`` and behind it one ``{label}``, with something in between.
    """
    front, _, rest = template.partition("{text}")
    between, _, end = rest.partition("{label}")
    if template.count("{text}") != 1 or template.count("{label}") != 1 or not between.strip():
        raise ValueError(
            f"the template {template!r} must hold {{text}} and behind it {{label}}, each once, with something between "
            "them, such as 'text: {text}\\nlabel: {label}\\n\\n'"
        )
    return front, between.rstrip(" "), end


def with_prompts(tasks: Tasks, tokenizer: PreTrainedTokenizerBase, templates: Iterable[str], max_tokens: int) -> Tasks:
    """The tasks with these templates filled in, every text cut to ``max_tokens`` tokens of its own."""
    pools = {
        split: replace(pool, prompts={t: fill(pool, tokenizer, t, max_tokens) for t in templates})
        for split, pool in tasks.pools.items()
    }
    return replace(tasks, pools=pools)


def fill(pool: Pool, tokenizer: PreTrainedTokenizerBase, template: str, max_tokens: int) -> Prompts:
    """A template with the texts and classes of a pool.

    Raises:
        ConfigError: the tokenizer joins the label to what is in front of it.
    """
    front, between, end = parts_of(template)
    gap = template.partition("{text}")[2].partition("{label}")[0][len(between) :]

    def encode(texts: Sequence[str]) -> list[list[int]]:
        chunks = [list(texts[start : start + CHUNK]) for start in range(0, len(texts), CHUNK)]
        return [ids for chunk in chunks for ids in tokenizer(chunk, add_special_tokens=False)["input_ids"]]

    def behind(tails: Sequence[str]) -> Pieces:
        (before,) = encode([between])
        whole = encode([between + gap + tail for tail in tails])
        for ids, tail in zip(whole, tails, strict=True):
            if ids[: len(before)] != before or len(ids) == len(before):
                raise ConfigError(
                    f"learner.template {template!r}: this tokenizer joins the label {tail.strip()!r} to what is in "
                    "front of it; expected a colon or a line break there"
                )
        return Pieces.of([ids[len(before) :] for ids in whole])

    def filled(texts: Sequence[str]) -> Pieces:
        return Pieces.of(encode([front + text + between for text in texts]))

    begin = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
    return Prompts(
        start=np.asarray(begin, dtype=np.int32),
        texts=filled(_cut(pool.texts, tokenizer, max_tokens)),
        labels=behind(pool.names),
        ends=behind([name + end for name in pool.names]),
        content_free=filled(CONTENT_FREE),
    )


def _cut(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[str]:
    """The texts, those of more tokens cut behind the last that they may have."""
    found = []
    for text in texts:
        # A word of many megabytes would be looked at whole.
        text = text[: LONGEST_TOKEN * max_tokens]
        # No token is shorter than a character, with rare exceptions that cost nothing but this look.
        if len(text) > max_tokens:
            encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
            ids = encoded["input_ids"]
            if len(ids) > max_tokens:
                fast = tokenizer.is_fast
                text = (
                    text[: encoded["offset_mapping"][max_tokens - 1][1]] if fast else tokenizer.decode(ids[:max_tokens])
                )
        found.append(text)
    return found
