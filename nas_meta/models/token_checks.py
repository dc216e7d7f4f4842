"""Whether a model takes the texts it is given, their token ids and their lengths, and whether its weights are finite.

These are checked before anything runs, because what torch says about an index out of range names neither the text nor
the tokenizer. The length is tried, not read from a config: families count positions differently.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn

from nas_meta.errors import ConfigError
from nas_meta.models.evaluating import inference
from nas_meta.tasks.pool import Pool, Tasks


def check_tokens(model: nn.Module, tasks: Tasks, subject: str) -> None:
    """Check that a model has an embedding for every token of the tasks, and positions for the longest text.

    Args:
        model: Model of texts; it is run once on the longest text, in evaluation mode.
        tasks: The tokenised tasks; nothing is checked if they are images.
        subject: What the error message calls the model, such as ``space.model 'models/bert'``.

    Raises:
        ConfigError: A token id or a length is too large for the model.
    """
    pools = [pool for pool in tasks.pools.values() if len(pool.tokens)]
    if not pools:
        return
    rows = vocabulary_rows(model)
    if rows is not None:
        for pool in pools:
            highest = int(pool.tokens.argmax())
            if pool.tokens[highest] >= rows:
                raise ConfigError(
                    f"{subject} has embeddings for {rows:,} tokens, but its tokenizer gives the token id "
                    f"{pool.tokens[highest]} for a part of the text '{_text_at(pool, highest)}'; expected the "
                    "tokenizer of this model, or embeddings resized for the added tokens (resize_token_embeddings)"
                )
    longest = max(pools, key=lambda pool: int(pool.lengths.max()))
    length = int(longest.lengths.max())
    tokens = longest.tokens[longest.offsets[int(longest.lengths.argmax())] :][:length]
    check_length(model, torch.from_numpy(tokens).long().unsqueeze(0), subject, "tasks.max_tokens")


def check_length(model: nn.Module, ids: Tensor, subject: str, key: str) -> None:
    """Check that a model takes a text of a given length.

    Args:
        model: Model of texts; it is run in evaluation mode.
        ids: Token ids ``[1, T]``.
        subject: What the error message calls the model.
        key: Config key that allows this length.

    Raises:
        ConfigError: The model takes the beginning of the text, but not all of it. A model that takes not even one token
            passes: its trials report why.
    """
    if _runs(model, ids):
        return
    most = _longest_that_runs(model, ids)
    if most:
        raise ConfigError(
            f"{subject} takes texts of at most {most} tokens, but {key} allows {ids.shape[1]}; expected at most {most}"
        )


def check_architecture(model: nn.Module, subject: str) -> None:
    """Check that a pretrained model is an encoder or a decoder alone.

    Args:
        model: The model.
        subject: What the error message calls it, such as ``space.model 'models/t5'``.

    Raises:
        ConfigError: Its ``forward`` needs the inputs of a decoder beside those of an encoder, as T5 and BART do.
    """
    if "decoder_input_ids" in signature(model.forward).parameters:
        raise ConfigError(
            f"{subject} is a {type(model).__name__}, an encoder with a decoder; expected an encoder alone, such as "
            "BERT, MiniLM or RoBERTa, or a causal language model for spaces of decoders"
        )


def check_weights(model: nn.Module, subject: str) -> None:
    """Check that the weights of a pretrained model are finite numbers.

    Args:
        model: The model.
        subject: What the error message calls it, such as ``space.model 'models/bert'``.

    Raises:
        ConfigError: A weight is NaN or infinite.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter.detach()).all():
            word = "NaN" if torch.isnan(parameter.detach()).any() else "infinite numbers"
            raise ConfigError(f"{subject} has {word} in its weights, in {name}; expected finite numbers")


def vocabulary_rows(model: nn.Module) -> int | None:
    """Return for how many token ids a model has embeddings.

    Args:
        model: The model.

    Returns:
        The rows of its input embeddings; None if it is not a transformers model, or does not say which they are.
    """
    try:
        table: Any = cast(Any, model).get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return getattr(table, "num_embeddings", None)


def _runs(model: nn.Module, ids: Tensor) -> bool:
    """Whether the model computes the states of these ids ``[1, T]``."""
    ids = ids.to(next(model.parameters()).device)
    try:
        with inference(model):
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError, ValueError):
        return False
    return True


def _longest_that_runs(model: nn.Module, ids: Tensor) -> int:
    """The largest number of first tokens of ids ``[1, T]`` that the model takes, by bisection; 0 if none."""
    good, bad = 0, ids.shape[1]
    while bad - good > 1:
        middle = (good + bad) // 2
        if _runs(model, ids[:, :middle]):
            good = middle
        else:
            bad = middle
    return good


def _text_at(pool: Pool, position: int) -> str:
    """The beginning of the text that a token of the pool belongs to."""
    index = int((pool.offsets <= position).sum()) - 1
    text = " ".join(str(pool.texts[index]).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
