"""What spaces share whose models start from nothing: a vocabulary, and how long a text may be."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from nas_meta import PluginOptions, SearchSpace
from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import MINILM
from nas_meta.tasks.pool import Tasks


class FromScratchOptions(PluginOptions):
    """Options of every such space."""

    tokenizer: str = Field(MINILM, description="whose vocabulary: a folder, a hub name, or starter:minilm")
    max_positions: int = Field(128, ge=1, description="longest text in tokens")
    dropout: float = Field(0.1, ge=0, lt=1, description="of states and of attention, while training")


class FromScratch(SearchSpace):
    """A space whose models know a tokenizer's vocabulary and nothing else."""

    Options = FromScratchOptions

    def __init__(self, options: FromScratchOptions | None = None):
        super().__init__(options)
        self.tokenizer = self.options.tokenizer

    @cached_property
    def vocabulary(self) -> tuple[int, int | None]:
        """How many tokens there are, and which one pads; travels to workers, where the tokenizer may not lie."""
        from nas_meta.tasks.tokenization import load_tokenizer

        tokenizer = load_tokenizer(self.tokenizer)
        return len(tokenizer), tokenizer.pad_token_id

    def prepare(self, tasks: Tasks, seed: int) -> None:
        """Reads the vocabulary.

        Raises:
            ConfigError: a text has more tokens than there are positions.
        """
        assert self.vocabulary
        longest = max(int(pool.lengths.max(initial=0)) for pool in tasks.pools.values())
        if longest > self.options.max_positions:
            raise ConfigError(
                f"space.max_positions is {self.options.max_positions}, but a text has {longest} tokens; expected at "
                "least as many, or a smaller tasks.max_tokens"
            )

    def refuse_below_one(self, *names: str) -> None:
        """Raises ConfigError where an option of these names lists a number below one, or none at all."""
        for name in names:
            values = getattr(self.options, name)
            if not values or min(values) < 1:
                raise ConfigError(f"space.{name} is {values}; expected numbers from 1 on, at least one")
