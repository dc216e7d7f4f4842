"""The tokenizer of a search space, and task sources tokenised with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_meta.errors import ConfigError
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

    def encode(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, truncation=True, max_length=max_tokens, padding=False)["input_ids"]

    return tokenise(source.load(), encode)
