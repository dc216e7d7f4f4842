"""Causality probe: whether the token states of a model depend on later tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas_meta.models.evaluating import inference


def is_causal(
    model: nn.Module,
    tokens: Sequence[int] | None = None,
    *,
    call: Callable[..., Any] | None = None,
    length: int = 4,
    exact: bool = False,
) -> bool:
    """Return whether no token state depends on the tokens after it.

    The test perturbs the input instead of reading the model's configuration: two rows differ in their last token only,
    and all states before it must agree. For the tokens ``a`` and ``b`` and the default length, the rows are
    ``a b a a`` and ``a b a b``; the first three states are compared. Each row is a separate forward pass, because
    matrix products may round the rows of one batch differently.

    Args:
        model: Model of texts, probed in evaluation mode; its training mode is restored.
        tokens: Two different token ids ``a`` and ``b``; by default two from the middle of the model's token table.
        call: Function to run instead of the model; takes ``input_ids`` and ``attention_mask`` as keywords.
        length: Tokens in a row, at least 2. With 2, only the first state is compared.
        exact: Whether the states must be equal bit for bit. By default they may differ by 1e-5 plus 1e-4 of their
            value: a mixture of experts, or a convolution by FFT, is causal up to rounding only.

    Returns:
        True if the states agree; False if they differ or if the model returns one embedding per text.
    """
    if tokens is None:
        size = len(model.get_input_embeddings().weight)
        tokens = (size // 3, 2 * size // 3)
    a, b = (int(token) for token in tokens)
    start = [a, b, *[a] * length][: length - 1]
    device = next(model.parameters()).device
    rows = [torch.tensor([[*start, last]], device=device) for last in (a, b)]
    with inference(model):
        one, other = (_states(call or model, row) for row in rows)
    if one.ndim != 3:
        return False
    one, other = one[:, :-1], other[:, :-1]
    return torch.equal(one, other) if exact else torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def _states(call: Callable[..., Any], ids: Tensor) -> Tensor:
    output = call(input_ids=ids, attention_mask=torch.ones_like(ids))
    return output if isinstance(output, Tensor) else output.last_hidden_state
