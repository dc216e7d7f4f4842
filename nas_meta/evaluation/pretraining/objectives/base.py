"""The base class of pre-training losses, and the checks that a model can learn by one."""

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
    """A self-supervised loss on unlabelled text; its own parameters are a head that is trained with the model.

    Args:
        model: The model to pre-train, as a search space builds it. It is not registered as a submodule.
        vocabulary: The vocabulary of the corpus.
        section: The options of the pre-training.
        pooling: How the token states of a text become one embedding; only for losses on embeddings.

    Raises:
        ConfigError: The model or the tokenizer does not fit the objective.
    """

    packed: ClassVar[bool] = True
    """Whether a row is a block of the corpus that ignores text boundaries; otherwise a row is one text."""

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__()
        self.vocabulary, self.section, self.pooling = vocabulary, section, pooling

    def rows(self, corpus: TokenStore, seed: int) -> RowSampler:
        """Return the sampler that draws the rows of each step.

        Args:
            corpus: The tokenised corpus.
            seed: Seed of the order of the rows.
        """
        return RowSampler(corpus, self.section.block, self.packed, seed)

    def inputs(self, ids: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Turn a batch of rows into the keyword arguments of :meth:`forward`.

        Args:
            ids: Token ids ``[B, T]``.
            mask: Attention mask ``[B, T]``, 1 for tokens and 0 for padding.
            rng: Random numbers of this step.

        Returns:
            Arrays by argument name, among them ``attention_mask``.
        """
        return {"input_ids": ids, "attention_mask": mask}

    @abstractmethod
    def forward(self, body: Any, **inputs: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            body: The model without its language-model head, or the compiled forward pass of it.
            **inputs: The tensors from :meth:`inputs`, on the model's device.

        Returns:
            A scalar.
        """


def token_states(body: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the hidden state of every token.

    Args:
        body: A model that returns the states or a transformers output with ``last_hidden_state``.
        input_ids: Token ids ``[B, T]``.
        attention_mask: Attention mask ``[B, T]``.

    Returns:
        States ``[B, T, D]``.
    """
    output = body(input_ids=input_ids, attention_mask=attention_mask)
    return output if isinstance(output, Tensor) else output.last_hidden_state


def without_lm_head(model: nn.Module) -> nn.Module:
    """Return the part of a model that computes the last hidden states.

    Args:
        model: Any model; a transformers model may have a language-model head.

    Returns:
        The base model under the head, or the model itself if it has no head.
    """
    from transformers import PreTrainedModel

    if isinstance(model, PreTrainedModel) and model.get_output_embeddings() is not None:
        return model.base_model
    return model


def input_embeddings(model: nn.Module, vocabulary: Vocabulary, objective: str) -> Tensor:
    """Return the token embeddings of a model.

    Args:
        model: A model with ``get_input_embeddings()``, or with exactly one embedding table that has a row for every
            token.
        vocabulary: The vocabulary of the corpus, with V tokens.
        objective: Name of the objective, for the error message.

    Returns:
        The table ``[V', E]`` with V' ≥ V.

    Raises:
        ConfigError: No table can be found, or it has fewer rows than the tokenizer has tokens.
    """
    name = type(model).__name__
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        # A custom module: take the only table that has a row for every token.
        tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings >= vocabulary.size]
        table = tables[0] if len(tables) == 1 else None
    weight = getattr(table, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ConfigError(
            f"pretraining.objective {objective} predicts tokens with the input embeddings, but {name} has none that "
            "can be found; expected a model with get_input_embeddings(), or objective: simcse"
        )
    if len(weight) < vocabulary.size:
        raise ConfigError(
            f"the tokenizer of the corpus has {vocabulary.size:,} tokens, but {name} has embeddings for "
            f"{len(weight):,}; expected the tokenizer of the model"
        )
    return weight


def check_row_length(model: nn.Module, vocabulary: Vocabulary, length: int) -> None:
    """Check that a model takes rows of a given length and returns one state per token.

    Args:
        model: The model, which computes one row without gradients.
        vocabulary: The vocabulary of the corpus.
        length: Number of tokens in a row (``pretraining.block``).

    Raises:
        ConfigError: The model fails on such a row, or does not return states ``[1, length, D]``.
    """
    device = next(model.parameters()).device
    ids = torch.full((1, length), int(vocabulary.ordinary[0]), device=device)
    name, training = type(model).__name__, model.training
    try:
        with torch.no_grad():
            states = token_states(model.eval(), ids, torch.ones_like(ids))
    except (RuntimeError, IndexError, ValueError) as error:
        raise ConfigError(
            f"pretraining.block is {length}, but {name} cannot process {length} tokens "
            f"({first_line(error, with_type=False)}); expected a smaller block"
        ) from error
    finally:
        model.train(training)
    if not isinstance(states, Tensor) or states.shape[:2] != ids.shape or states.ndim != 3:
        raise ConfigError(
            f"pre-training needs one state per token, but {name} returns the shape "
            f"{list(getattr(states, 'shape', []))} for 1 text of {length} tokens; expected [1, {length}, width]"
        )
