"""The state of unfinished work as bytes, so that another process goes on with it exactly."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def packed_state(state: Mapping[str, Any]) -> np.ndarray:
    """Tensors and plain data in bytes, which Ray moves without a copy."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return np.frombuffer(buffer.getbuffer(), dtype=np.uint8)


def unpacked_state(data: np.ndarray) -> dict[str, Any]:
    """What :func:`packed_state` packed; nothing in it is executed."""
    return torch.load(io.BytesIO(data.tobytes()), map_location="cpu", weights_only=True)


def random_state() -> dict[str, torch.Tensor]:
    """That of torch's global generators, on the CPU and on the current GPU if there is one."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"gpu": torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def set_random_state(state: Mapping[str, torch.Tensor]) -> None:
    """Goes back to a :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if "gpu" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["gpu"])
