"""Pooling: from the states of tokens to one embedding per text, for padded batches and for packed rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas_meta.models.packing import Packing

POOLINGS = ("mean", "cls", "last", "attention")


def pool_states(model: nn.Module, states: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Pool the states of a padded batch into one embedding per example.

    Args:
        model: Model that computed the states; ``attention`` calls its ``pooling_scores(states)``, which returns one
            score per token, ``[B, T]``.
        states: Token states ``[B, T, D]``.
        mask: Attention mask ``[B, T]``, 1 for tokens and 0 for padding; None pools over all states, as for images.
        pooling: ``mean`` averages the tokens of the mask, ``cls`` takes the first state, ``last`` the last state of
            the mask, and ``attention`` the average weighted by the softmax of the scores.

    Returns:
        Embeddings ``[B, D]``.
    """
    if pooling == "cls":
        return states[:, 0]
    if mask is None:
        mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    if pooling == "last":
        places = torch.arange(mask.shape[1], device=mask.device)
        last = (mask * places).argmax(1)[:, None, None]
        return states.gather(1, last.expand(-1, 1, states.shape[2])).squeeze(1)
    if pooling == "attention":
        scores = model.pooling_scores(states).to(states.dtype).masked_fill(mask == 0, -torch.inf)
        return (states * scores.softmax(1).unsqueeze(-1)).sum(1)
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def pool_packed(model: nn.Module, states: Tensor, packing: Packing, pooling: str) -> Tensor:
    """Pool the states of packed rows into one embedding per text, equal to :func:`pool_states` of each text alone.

    Args:
        model: As in :func:`pool_states`; its scores are computed for ``[R * L, D]``.
        states: Token states ``[R, L, D]`` of R rows.
        packing: Which text each token belongs to, as tensors.
        pooling: As in :func:`pool_states`.

    Returns:
        Embeddings ``[B, D]`` in the order of the texts.
    """
    states = states.flatten(0, 1)
    if pooling == "cls":
        return states.index_select(0, packing.first)
    if pooling == "last":
        return states.index_select(0, packing.first + packing.lengths - 1)
    if pooling == "attention":
        scores = model.pooling_scores(states).to(states.dtype)
        # A softmax per text. Subtracting one maximum for all texts prevents overflow; it is safe because normalised
        # states are bounded, so that no text's scores lie far below the maximum.
        weights = (scores - scores.detach().max()).exp().unsqueeze(-1)
        tiny = torch.finfo(weights.dtype).tiny
        return _sum_by_text(states * weights, packing) / _sum_by_text(weights, packing).clamp(min=tiny)
    return _sum_by_text(states, packing) / packing.lengths[:, None].to(states.dtype).clamp(min=1)


def _sum_by_text(values: Tensor, packing: Packing) -> Tensor:
    """Sum ``[R * L, D]`` over the tokens of each packed text to ``[B, D]``; padding goes to a row that is dropped."""
    texts = packing.first.shape[0]
    sums = torch.zeros(texts + 1, values.shape[1], dtype=values.dtype, device=values.device)
    return sums.index_add(0, packing.owner.flatten(), values)[:texts]
