"""A model's state as safetensors bytes, which Ray moves without a copy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_meta.errors import TrialError


def serialize_state(module: torch.nn.Module) -> np.ndarray:
    """A module's state."""
    from safetensors.torch import save

    state = {name: t.detach().cpu().contiguous().clone() for name, t in module.state_dict().items()}
    return np.frombuffer(save(state), dtype=np.uint8)


def deserialize_state(weights: bytes) -> dict[str, torch.Tensor]:
    """The state that :func:`serialize_state` packed.

    Raises:
        TrialError: these are no such bytes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(weights)
    except SafetensorError as error:
        raise TrialError(f"the weights are not a safetensors file ({error})") from error


def serialize_training(encoder: nn.Module, **parts: Any) -> np.ndarray:
    """The encoder's weights, torch's random numbers, and what else a training consists of: tensors and plain data.

    In bytes, which Ray moves without a copy.
    """
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["gpu"] = torch.cuda.get_rng_state()
    buffer = io.BytesIO()
    torch.save({**parts, "encoder": encoder.state_dict(), "random": random}, buffer)
    return np.frombuffer(buffer.getbuffer(), dtype=np.uint8)


def restore_training(data: np.ndarray, encoder: nn.Module) -> dict[str, Any]:
    """Sets weights and random numbers to those that :func:`serialize_training` packed; returns the parts beside them.

    Nothing in the bytes is executed.
    """
    state = torch.load(io.BytesIO(data.tobytes()), map_location="cpu", weights_only=True)
    encoder.load_state_dict(state.pop("encoder"))
    random = state.pop("random")
    torch.set_rng_state(random["cpu"])
    if "gpu" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["gpu"])
    return state
