"""Synaptic flow as a score of architectures.

Tanaka et al. 2020, "Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic Flow"; as a proxy,
Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS".

Every parameter θ is set to |θ| and the input is all ones. With R the sum of the outputs, the score is Σ |θ ∂R/∂θ|
(equation 2 and section 6 of Tanaka et al.).

In a transformer, the input is the output of the embedding tables for a single token, for which attention only passes
its value on. A normalisation would cancel the flow of the layers before it. Here it divides the states by their size as
a constant, through which no gradient flows.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from nas_meta.evaluation.proxies.base import ProxyInputs
from nas_meta.models.encoder import Encoder


def synflow(encoder: Encoder, inputs: ProxyInputs) -> float:
    """Return the synaptic flow log10 Σ |θ ∂R/∂θ| of a model.

    Args:
        encoder: The untrained model, which is not changed.
        inputs: Unused; the flow needs no data.

    Returns:
        The flow, or -400 if it is zero.
    """
    # A copy in double precision: the flow grows by orders of magnitude with every layer.
    model = copy.deepcopy(encoder.model).double().eval().requires_grad_(True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(lambda _module, _inputs, states: torch.ones_like(states))
        elif is_norm(module):
            module.register_forward_hook(scale_only)
    ids = torch.ones(1, 1, dtype=torch.long)
    output = model(input_ids=ids, attention_mask=ids)
    (output if isinstance(output, Tensor) else output.last_hidden_state).sum().backward()
    total = sum(float((p.detach() * p.grad).abs().sum()) for p in model.parameters() if p.grad is not None)
    return -400.0 if total == 0 else math.log10(total)


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a layer norm, or an RMS norm of torch or of a transformers model.

    Args:
        module: Any module.
    """
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")


def scale_only(module: nn.Module, inputs: tuple[Tensor, ...], _states: Tensor) -> Tensor:
    """Replace a normalisation by a division by a constant; a forward hook.

    The states still need a normal size, because gated layers multiply states and would make them infinite.

    Args:
        module: The normalisation, whose weight and bias still apply.
        inputs: Its positional arguments; the first is the states ``[B, T, D]``.

    Returns:
        The scaled states ``[B, T, D]``.
    """
    scaled = inputs[0] / inputs[0].detach().square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
    scaled = scaled if getattr(module, "weight", None) is None else scaled * module.weight
    return scaled if getattr(module, "bias", None) is None else scaled + module.bias
