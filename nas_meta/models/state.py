"""Serialisation: models and whole trainings as byte arrays, which Ray moves between workers without a copy."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_meta.errors import TrialError


def serialize_state(module: torch.nn.Module) -> np.ndarray:
    """Serialise the state of a module in the safetensors format.

    Args:
        module: Any module, on any device.

    Returns:
        Bytes of its parameters and buffers, ``uint8``.
    """
    from safetensors.torch import save

    state = {name: t.detach().cpu().contiguous().clone() for name, t in module.state_dict().items()}
    return np.frombuffer(save(state), dtype=np.uint8)


def deserialize_state(weights: bytes) -> dict[str, torch.Tensor]:
    """Return the state that :func:`serialize_state` wrote.

    Args:
        weights: Content of a safetensors file.

    Returns:
        Tensors by name, on the CPU, as ``load_state_dict`` takes them.

    Raises:
        TrialError: If the bytes are not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(weights)
    except SafetensorError as error:
        raise TrialError(f"the weights are not a safetensors file ({error})") from error


def damage_of_weights(path: Path) -> str | None:
    """Check that a safetensors file is complete, without reading its tensors.

    Args:
        path: The file.

    Returns:
        What is wrong with it; None if nothing is.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return None
    except (SafetensorError, OSError, ValueError, MemoryError) as error:  # the size of a file is not what it holds
        return str(error)


def serialize_training(encoder: nn.Module, **parts: Any) -> np.ndarray:
    """Serialise a training in progress, so that :func:`restore_training` resumes it with the same numbers.

    Args:
        encoder: Module whose weights are trained.
        parts: Everything else that the training needs, such as the optimiser's state: tensors and plain data.

    Returns:
        Bytes of the weights, the state of torch's random number generators, and the parts, ``uint8``.
    """
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["gpu"] = torch.cuda.get_rng_state()
    buffer = io.BytesIO()
    torch.save({**parts, "encoder": encoder.state_dict(), "random": random}, buffer)
    return np.frombuffer(buffer.getbuffer(), dtype=np.uint8)


def restore_training(data: np.ndarray, encoder: nn.Module) -> dict[str, Any]:
    """Restore the weights and random number generators that :func:`serialize_training` wrote.

    The bytes are loaded with ``weights_only=True``: no code in them is executed.

    Args:
        data: Bytes of :func:`serialize_training`.
        encoder: Module of the same architecture; its weights are overwritten.

    Returns:
        The remaining parts by name.
    """
    state = torch.load(io.BytesIO(data.tobytes()), map_location="cpu", weights_only=True)
    encoder.load_state_dict(state.pop("encoder"))
    random = state.pop("random")
    torch.set_rng_state(random["cpu"])
    if "gpu" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["gpu"])
    return state
