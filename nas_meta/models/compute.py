"""How models compute: device, precision, compilation, and gradient checkpointing."""

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
    """Device, precision, compilation and checkpointing of a trial's model.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, or ``bf16`` for matrix products and attention in bfloat16 and the rest in fp32 (autocast).
            Parameters stay in fp32 either way.
        compile: Whether the model is compiled with ``torch.compile``.
        gradient_checkpointing: Whether layers store only their input and are recomputed in the backward pass, which
            saves memory for about a third more time (Chen et al. 2016, "Training Deep Nets with Sublinear Memory
            Cost").
    """

    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = False
    gradient_checkpointing: bool = False

    def check(self) -> None:
        """Check that this process has the hardware and the compilers that the settings need.

        Raises:
            ConfigError: If torch finds no GPU, or if compilation needs a package or a compiler that is missing.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                "compute.device is cuda, but torch finds no GPU; expected a machine with a GPU and a CUDA build of "
                "torch, or compute.device: cpu"
            )
        if self.compile and self.device == "cuda" and importlib.util.find_spec("triton") is None:
            raise ConfigError("compute.compile needs the package triton on a GPU; install it, or set compile: false")
        compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
        if self.compile and self.device == "cpu" and not any(map(shutil.which, compilers)):
            raise ConfigError("compute.compile needs a C++ compiler; install g++ or clang++, or set compile: false")

    def start(self, threads: int = 0) -> None:
        """Check the settings and set the number of CPU threads, once per worker.

        Args:
            threads: CPU threads of torch; 0 keeps torch's default.

        Raises:
            ConfigError: As in :meth:`check`.
        """
        self.check()
        if threads:
            torch.set_num_threads(threads)

    def autocast(self) -> AbstractContextManager:
        """Return a context in which operations that tolerate it compute in :attr:`precision`."""
        # No cache of bfloat16 weights: it would keep stale copies of the weights that an inner loop updates.
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)


def available_gpus() -> int:
    """Return the number of GPUs on which torch can compute in this process."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def has_amx() -> bool:
    """Return whether the CPU has AMX, with which it multiplies bf16 matrices faster than fp32 ones."""
    # Versions of torch before get_capabilities() count as without.
    return bool(getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16"))


def compile_model(model: nn.Module) -> Callable[..., Any]:
    """Compile a model's forward pass for any number of texts and tokens.

    Args:
        model: Model to compile; it is not changed.

    Returns:
        The compiled forward function, with the same arguments.
    """
    return torch.compile(model.forward, dynamic=True)


def forget_compiled() -> None:
    """Release compiled code, which the next trial cannot reuse and which would count towards its memory."""
    torch.compiler.reset()


def allow_checkpointing(model: nn.Module) -> Sequence[nn.Module]:
    """Prepare a model for :func:`checkpointed`.

    Args:
        model: Model with layers of the class ``GradientCheckpointingLayer`` of transformers, at any depth.

    Returns:
        Its outermost layers of this class.

    Raises:
        TrialError: If the model has no such layer.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module not in inside:
            layers.append(module)
            inside.update(module.modules())
    if not layers:
        raise TrialError(
            f"compute.gradient_checkpointing is true, but {type(model).__name__} has no layer that can be recomputed; "
            "expected a model with a GradientCheckpointingLayer of transformers, or gradient_checkpointing: false"
        )
    for layer in layers:
        # Private, because gradient_checkpointing_enable() exists for whole models of transformers alone, and these
        # layers may be part of a sub-network or of the user's own module.
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return layers


@contextmanager
def checkpointed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Enable gradient checkpointing inside the block.

    Args:
        layers: What :func:`allow_checkpointing` returned. In training mode, they store only their input and are
            recomputed in the backward pass.
    """
    for layer in layers:
        layer.gradient_checkpointing = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = False
