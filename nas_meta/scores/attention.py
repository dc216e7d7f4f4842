"""Attention confidence (Serianni and Kalita 2023, "Training-free Neural Architecture Search for RNNs and Transformers").

The confidence of a head is the mean over tokens of its largest attention weight, A(h) = 1/N Σ max Att_h(x_n) (after Voita
et al. 2019); the score is its mean over heads, layers and texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nas_meta.embedding import Encoder
from nas_meta.scores.sample import Sample

SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)


class Watch(TorchFunctionMode):
    """Sees the attention of any model: torch's own function, or a softmax over ``[B, heads, T, T]``.

    Attributes:
        confident: for every call the mean over texts and tokens of the largest weight of each head, ``[heads]``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.confident: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if function is F.scaled_dot_product_attention:
            self.confident.append(largest(weights(*args, **kwargs)))
        elif function in SOFTMAX and output.ndim == 4 and output.shape[2] == output.shape[3]:
            self.confident.append(largest(output))
        return output


def weights(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """The weights ``[B, heads, T, T]`` of ``scaled_dot_product_attention`` without dropout."""
    # Of values that are the identity, attention is its weights.
    identity = torch.eye(key.shape[-2], dtype=value.dtype, device=value.device).expand(*key.shape[:-1], -1)
    return F.scaled_dot_product_attention(
        query, key, identity, attn_mask=attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
    )


def largest(attention: Tensor) -> Tensor:
    """``[heads]`` of ``[B, heads, T, T]``."""
    return attention.amax(-1).mean((0, 2))


def attention_confidence(encoder: Encoder, sample: Sample) -> float:
    """The mean confidence of all heads; 0 of a model without attention."""
    lengths, texts = sample.pool.lengths[sample.texts], sample.texts
    total = 0.0
    with torch.no_grad():
        # Equally long texts together: padding would be attention, too.
        for length in np.unique(lengths):
            chosen = texts[lengths == length]
            ids, mask = map(torch.from_numpy, sample.pool.batch(chosen))
            with Watch() as watch:
                encoder(ids, mask)
            if watch.confident:
                total += len(chosen) * float(torch.cat(watch.confident).mean())
    return total / len(texts)
