"""The number of parameters: the baseline that every other proxy has to beat."""

from __future__ import annotations

from nas_meta.evaluation.proxies.base import ProxyInputs
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import parameters as count


def parameters(encoder: Encoder, inputs: ProxyInputs) -> float:
    """Return the number of parameters of a model; shared ones count once.

    Args:
        encoder: The untrained model.
        inputs: Unused.
    """
    return float(count(encoder.model))
