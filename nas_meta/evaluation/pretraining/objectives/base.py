"""What every objective shares: how it looks into a model, and what a model must be able to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nas_meta.core.guard import first_line
from nas_meta.errors import ConfigError
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.evaluation.pretraining.row_sampler import RowSampler
from nas_meta.tasks.corpus.token_store import TokenStore
from nas_meta.tasks.corpus.vocabulary import Vocabulary


class PretrainingLoss(nn.Module, ABC):
    """How a model learns from texts without labels. Its own parameters are a head, trained with the model.

    Args:
        model: what a search space builds; not a part of this module.
        vocabulary: of the corpus.
        pooling: how the states of a text become one embedding.

    Raises:
        ConfigError: the model cannot learn so.
    """

    packed: ClassVar[bool] = True
    """Whether rows are blocks of the corpus; else each is one text."""

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__()
        self.vocabulary, self.section, self.pooling = vocabulary, section, pooling

    def rows(self, corpus: TokenStore, seed: int) -> RowSampler:
        """Where the rows of each step come from."""
        return RowSampler(corpus, self.section.block, self.packed, seed)

    def inputs(self, ids: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """What :meth:`forward` takes, made of a batch of rows ``[B, T]``."""
        return {"input_ids": ids, "attention_mask": mask}

    @abstractmethod
    def forward(self, call: Any, **inputs: Tensor) -> Tensor:
        """The mean loss of a batch; ``call`` is the model, compiled or not."""


def states_of(call: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What a model gives for every token, ``[B, T, D]``."""
    output = call(input_ids=input_ids, attention_mask=attention_mask)
    return output if isinstance(output, Tensor) else output.last_hidden_state


def body_of(model: nn.Module) -> nn.Module:
    """The part of a model that gives the last states: of one with a head for words that which is below it."""
    from transformers import PreTrainedModel

    if isinstance(model, PreTrainedModel) and model.get_output_embeddings() is not None:
        return model.base_model
    return model


def input_embeddings(model: nn.Module, vocabulary: Vocabulary, objective: str) -> Tensor:
    """The table of token embeddings ``[V', E]``, V' at least the size of the vocabulary.

    Raises:
        ConfigError: the model has none, or fewer rows than the tokenizer has tokens.
    """
    name = type(model).__name__
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        # A module of the author's own: the table that has a row for every token.
        tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings >= vocabulary.size]
        table = tables[0] if len(tables) == 1 else None
    weight = getattr(table, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ConfigError(
            f"pretraining.objective {objective} tells words by the input embeddings, but {name} has none that can be "
            "found; expected a model with get_input_embeddings(), or objective: simcse"
        )
    if len(weight) < vocabulary.size:
        raise ConfigError(
            f"the tokenizer of the corpus has {vocabulary.size:,} tokens, but {name} has embeddings for "
            f"{len(weight):,}; expected the tokenizer of the model"
        )
    return weight


def check_rows(model: nn.Module, vocabulary: Vocabulary, length: int) -> None:
    """Raises ConfigError where a model cannot take rows of that many tokens, or gives no state for each of them."""
    device = next(model.parameters()).device
    ids = torch.full((1, length), int(vocabulary.ordinary[0]), device=device)
    name, trained = type(model).__name__, model.training
    try:
        with torch.no_grad():
            states = states_of(model.eval(), ids, torch.ones_like(ids))
    except (RuntimeError, IndexError, ValueError) as error:
        raise ConfigError(
            f"pretraining.block is {length}, but {name} cannot take so many tokens "
            f"({first_line(error, with_type=False)}); expected fewer"
        ) from error
    finally:
        model.train(trained)
    if not isinstance(states, Tensor) or states.shape[:2] != ids.shape or states.ndim != 3:
        raise ConfigError(
            f"pre-training needs a state for every token, but {name} gives {list(getattr(states, 'shape', []))} for "
            f"1 text of {length} tokens; expected [1, {length}, width]"
        )
