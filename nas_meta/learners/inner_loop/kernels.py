"""Kernels whose derivatives a differentiated inner loop cannot take, replaced by ones it can."""

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
    """Fused attention has no second derivative and no rule for ``vmap``: the math kernel has both.

    Under ``vmap``, ``layer_norm`` with weights of its own for every task has a wrong second derivative
    (pytorch/functorch#534): there it is written out.
    """
    with sdpa_kernel(SDPBackend.MATH):
        if vmapped:
            with _LayerNormWrittenOut():
                yield
        else:
            yield


class _LayerNormWrittenOut(TorchFunctionMode):
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
    """(x - E x) / √(Var x + ε) · w + b over the last dimensions, in elementary operations."""
    dims = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(dims, keepdim=True)
    scaled = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias
