"""Base of the search spaces ``encoder`` and ``decoder``: a tokenizer's vocabulary and a limit on text length."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from nas_meta import PluginOptions, SearchSpace
from nas_meta.core.paths import ModelName
from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import MINILM
from nas_meta.tasks.pool import Tasks


class FromScratchOptions(PluginOptions):
    """Options of every search space of text models from scratch."""

    tokenizer: ModelName = Field(
        MINILM, description="tokenizer whose vocabulary the models use: a folder, a hub name, or starter:minilm"
    )
    max_positions: int = Field(128, ge=1, description="longest text that the models take, in tokens")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout rate of states and attention weights during training")


class FromScratch(SearchSpace):
    """Base class of search spaces whose text models start from random weights.

    Args:
        options: Options of the space; its defaults if None.
    """

    Options = FromScratchOptions
    from_scratch = True

    def __init__(self, options: FromScratchOptions | None = None):
        super().__init__(options)
        self.tokenizer = self.options.tokenizer

    @cached_property
    def vocabulary(self) -> tuple[int, int | None]:
        """Number of tokens and id of the padding token.

        Pickled with the space, because workers may not have the tokenizer's folder.
        """
        from nas_meta.tasks.tokenization import load_tokenizer

        tokenizer = load_tokenizer(self.tokenizer)
        return len(tokenizer), tokenizer.pad_token_id

    def prepare(self, tasks: Tasks, seed: int) -> None:
        """Read the vocabulary and check the length of the texts.

        Args:
            tasks: The pools of tokenised texts.
            seed: Unused.

        Raises:
            ConfigError: A text is longer than ``max_positions``.
        """
        assert self.vocabulary
        longest = max(int(pool.lengths.max(initial=0)) for pool in tasks.pools.values())
        if longest > self.options.max_positions:
            raise ConfigError(
                f"space.max_positions is {self.options.max_positions}, but the longest text has {longest} tokens; "
                f"expected at least {longest}, or a smaller tasks.max_tokens"
            )

    def require_positive(self, *names: str) -> None:
        """Check that options are non-empty lists of positive integers.

        Args:
            *names: Names of the options.

        Raises:
            ConfigError: One of the lists is empty or contains a number below 1.
        """
        for name in names:
            values = getattr(self.options, name)
            if not values or min(values) < 1:
                raise ConfigError(f"space.{name} is {values}; expected a non-empty list of positive integers")
