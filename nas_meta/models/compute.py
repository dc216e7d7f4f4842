"""On what and how models compute: device, precision, compilation, layers computed again in the backward pass."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nas_meta.errors import ConfigError, TrialError


@dataclass(frozen=True)
class Compute:
    """How a trial's model computes; what is learned is kept in fp32 however it is.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, or ``bf16``: matrix products and attention in bfloat16, the rest in fp32 (autocast).
        compile: whether the model goes through ``torch.compile``.
        gradient_checkpointing: whether layers keep only their input and are computed again in the backward pass (Chen
            et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """

    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = False
    gradient_checkpointing: bool = False

    def check(self) -> None:
        """Raises ConfigError where this process cannot compute so."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "compute.device is cuda, but torch finds no GPU here; expected a machine with one and a torch that was "
                "built for it, or compute.device: cpu"
            )
        if self.compile and self.device == "cuda" and importlib.util.find_spec("triton") is None:
            raise ConfigError("compute.compile needs the package triton on a GPU; expected it, or compile: false")
        compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
        if self.compile and self.device == "cpu" and not any(map(shutil.which, compilers)):
            raise ConfigError("compute.compile needs a C++ compiler; expected g++ or clang++, or compile: false")

    def start(self, threads: int = 0) -> None:
        """Once per worker: checks, and sets CPU threads; 0 leaves torch's own choice.

        Raises:
            ConfigError: this process cannot compute so.
        """
        self.check()
        if threads:
            torch.set_num_threads(threads)

    def autocast(self) -> AbstractContextManager:
        """Within, operations that bear it compute in :attr:`precision`."""
        # Without its cache of narrow weights: these would outlive the weights that an inner loop moves.
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)


def compile_model(model: nn.Module) -> Callable[..., Any]:
    """The model's forward pass, compiled for any number of texts and tokens."""
    return torch.compile(model.forward, dynamic=True)


def forget_compiled() -> None:
    """Gives back what was compiled: the next trial's model is another one, and the compiler's memory is counted."""
    torch.compiler.reset()


def allow_checkpointing(model: nn.Module) -> Sequence[nn.Module]:
    """The outermost layers of a model that can be computed again in the backward pass (transformers' own).

    Raises:
        TrialError: it has none.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module not in inside:
            found.append(module)
            inside.update(module.modules())
    if not found:
        raise TrialError(
            f"compute.gradient_checkpointing: {type(model).__name__} has no layer that can be computed again; expected "
            "a model of transformers' GradientCheckpointingLayers, or gradient_checkpointing: false"
        )
    for layer in found:
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return found


@contextmanager
def checkpointed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Within, these layers keep only their input while they train."""
    for layer in layers:
        layer.gradient_checkpointing = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = False
