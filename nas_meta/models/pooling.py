"""Pooling: from token states to one embedding per text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas_meta.models.packing import Packing

POOLINGS = ("mean", "cls", "last", "attention")


def pool_states(model: nn.Module, states: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Embeddings ``[B, D]`` of the states ``[B, T, D]`` that a model gives for a mask ``[B, T]``, or without one."""
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
    seen = mask.unsqueeze(-1).to(states.dtype)
    return (states * seen).sum(1) / seen.sum(1).clamp(min=1)


def _sums(of: Tensor, whose: Packing) -> Tensor:
    """Sums ``[B, D]`` over the tokens of each packed text, of ``[R * L, D]``."""
    texts = whose.first.shape[0]
    sums = torch.zeros(texts + 1, of.shape[1], dtype=of.dtype, device=of.device)
    return sums.index_add(0, whose.owner.flatten(), of)[:texts]
