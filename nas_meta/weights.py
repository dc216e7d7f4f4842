"""A model's state as safetensors bytes, which Ray moves without a copy."""

from __future__ import annotations

import numpy as np
import torch

from nas_meta.errors import TrialError


def packed(module: torch.nn.Module) -> np.ndarray:
    """A module's state."""
    from safetensors.torch import save

    state = {name: t.detach().cpu().contiguous().clone() for name, t in module.state_dict().items()}
    return np.frombuffer(save(state), dtype=np.uint8)


def unpacked(weights: bytes) -> dict[str, torch.Tensor]:
    """The state that :func:`packed` packed.

    Raises:
        TrialError: these are no such bytes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(weights)
    except SafetensorError as error:
        raise TrialError(f"the weights are not a safetensors file ({error})") from error
