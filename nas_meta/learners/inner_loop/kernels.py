"""Replacements for kernels that have no correct second derivative, for differentiating through an inner loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def differentiable_kernels(vmapped: bool = False) -> Iterator[None]:
    """Make PyTorch use kernels that support second derivatives and ``vmap``.

    Attention uses the math kernel, because the fused kernels have neither a second derivative nor a batching rule. With
    ``vmapped``, ``layer_norm`` is computed from elementary operations, because its second derivative is wrong if every
    task of the batch has different weights (pytorch/functorch#534).

    Args:
        vmapped: Whether the model runs inside ``torch.func.vmap``.
    """
    with sdpa_kernel(SDPBackend.MATH):
        if vmapped:
            with _ElementaryLayerNorm():
                yield
        else:
            yield


class _ElementaryLayerNorm(TorchFunctionMode):
    """Replaces ``F.layer_norm`` by :func:`layer_norm`."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is F.layer_norm:
            return layer_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Compute (x - E x) / √(Var x + ε) · w + b over the last dimensions with elementary operations.

    Args:
        input: A tensor whose last dimensions are ``normalized_shape``.
        normalized_shape: The dimensions to normalise over.
        weight: w, of ``normalized_shape``; None omits it.
        bias: b, of ``normalized_shape``; None omits it.
        eps: ε.
    """
    dims = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(dims, keepdim=True)
    scaled = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias
