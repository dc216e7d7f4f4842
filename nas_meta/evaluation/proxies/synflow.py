"""Synaptic flow (Tanaka et al. 2020, "Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic
Flow"), as a score of architectures (Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS").

Every parameter θ stands at |θ| and the input is all ones; with R the sum of the outputs, the score is Σ |θ ∂R/∂θ|
(equation 2 and section 6 of Tanaka et al.). In a transformer the input are the token states behind the embedding
tables, of one token, so that attention hands on its value. A normalisation would undo the flow of what lies before
it: here it divides by a constant, the size that the states have.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from nas_meta.evaluation.proxies.base import ProxyInputs
from nas_meta.models.encoder import Encoder


def synflow(encoder: Encoder, sample: ProxyInputs) -> float:
    """log10 Σ |θ ∂R/∂θ|; minus 400 where nothing flows."""
    # In double precision, of a copy: the flow grows by orders of magnitude with every layer.
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
    """Whether a module normalises states: torch's own, and RMSNorm as transformers' models each define it."""
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")


def scale_only(module: nn.Module, inputs: tuple[Tensor, ...], _states: Tensor) -> Tensor:
    """A normalisation by a constant: states keep their size, or gated layers would make them infinite."""
    scaled = inputs[0] / inputs[0].detach().square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
    scaled = scaled if getattr(module, "weight", None) is None else scaled * module.weight
    return scaled if getattr(module, "bias", None) is None else scaled + module.bias
