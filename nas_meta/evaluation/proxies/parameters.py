"""The number of parameters: the baseline that every other score has to beat."""

from __future__ import annotations

from nas_meta.evaluation.proxies.base import ProxyInputs
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import parameters as count


def parameters(encoder: Encoder, sample: ProxyInputs) -> float:
    """The number of the model's parameters."""
    return float(count(encoder.model))
