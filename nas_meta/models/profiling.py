"""Profiling: parameters, FLOPs, latency and memory of a model, and confidence intervals."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from nas_meta.models.cpu_load import OtherLoad, is_busy
from nas_meta.models.evaluating import inference
from nas_meta.models.onnx.forms import TORCH

WARM_UP = 5  # untimed forward passes before the timed ones
ATTEMPTS = 3  # measurements of a latency, the first included, while other processes are busy


def interval95(values: np.ndarray) -> float:
    """Return half the width of the 95 % confidence interval of the mean, 1.96 · s / √n.

    Args:
        values: ``[n]`` independent measurements with sample standard deviation s.

    Returns:
        The half width in the unit of the values; NaN for fewer than two values.
    """
    if len(values) < 2:
        return math.nan
    return float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values)))


def parameters(model: nn.Module) -> int:
    """Return the number of parameters of a model; shared parameters count once."""
    return sum(p.numel() for p in model.parameters())


def text_inputs(texts: int, tokens: int) -> dict[str, torch.Tensor]:
    """Return a batch of texts without padding, for profiling.

    Args:
        texts: Number of texts B.
        tokens: Number of tokens T of each text.

    Returns:
        ``input_ids`` and ``attention_mask``, both ``[B, T]`` of ones.
    """
    return dict.fromkeys(("input_ids", "attention_mask"), torch.ones(texts, tokens, dtype=torch.long))


def flops(model: nn.Module, inputs: int | Mapping[str, torch.Tensor]) -> int:
    """Return the floating-point operations of one forward pass; a multiply-add counts as two.

    Counted by ``torch.utils.flop_counter``, which knows matrix products and convolutions only.

    Args:
        model: Model to profile; its training mode is restored.
        inputs: Inputs of the model by name, or the number of tokens of a single text.
    """
    device = next(model.parameters()).device
    inputs = text_inputs(1, inputs) if isinstance(inputs, int) else inputs
    # The counter sees attention only in the math kernel, where it consists of matrix products.
    counter = FlopCounterMode(display=False)
    with inference(model), sdpa_kernel(SDPBackend.MATH), counter:
        model(**{name: tensor.to(device) for name, tensor in inputs.items()})
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class LatencySettings:
    """Settings of a latency measurement.

    Attributes:
        batch: Examples per forward pass.
        tokens: Tokens of each text.
        threads: CPU threads during the measurement.
        seconds: Minimum total duration of the timed passes, in seconds.
        form: ``torch``, ``onnx`` or ``onnx-int8``; see :mod:`nas_meta.models.onnx.deployed`.
    """

    batch: int = 1
    tokens: int = 32
    threads: int = 1
    seconds: float = 1.0
    form: str = TORCH


def latency(
    model: nn.Module, settings: LatencySettings, inputs: Mapping[str, torch.Tensor] | None = None
) -> dict[str, float]:
    """Measure the latency of a forward pass in torch.

    Args:
        model: Model to time; it stays in evaluation mode.
        settings: Batch, tokens, threads and duration of the measurement.
        inputs: Inputs of the model by name; by default a batch of texts as the settings describe.

    Returns:
        ``latency``, the median time of a forward pass, and ``latency_iqr``, the interquartile range, in seconds;
        ``latency_load``, the number of CPUs that other processes used meanwhile, and ``latency_busy``, 1 if that is
        enough to disturb the measurement, else 0. A disturbed measurement is repeated, and the calmest one counts.
    """
    device = next(model.parameters()).device
    inputs = text_inputs(settings.batch, settings.tokens) if inputs is None else inputs
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    return timed("model(**inputs)", {"model": model.eval(), "inputs": inputs}, settings)


def timed(statement: str, names: Mapping[str, Any], settings: LatencySettings) -> dict[str, float]:
    """Time a statement.

    Args:
        statement: Python code of one forward pass.
        names: What the statement refers to, by name.
        settings: Threads and duration of the measurement.

    Returns:
        As for :func:`latency`.
    """
    timer = Timer(statement, globals=dict(names), num_threads=settings.threads)
    with torch.inference_mode():
        timer.timeit(WARM_UP)
        attempts = []
        while len(attempts) < ATTEMPTS and (not attempts or is_busy(attempts[-1][0])):
            load = OtherLoad()
            measured = timer.blocked_autorange(min_run_time=settings.seconds)
            attempts.append((load.read(), measured.median, measured.iqr))
    load_of_others, median, iqr = min(attempts)
    return {
        "latency": median, "latency_iqr": iqr, "latency_load": load_of_others,
        "latency_busy": float(is_busy(load_of_others)),
    }  # fmt: skip


class PeakMemory:
    """Peak memory since the creation of this object: allocations on the GPU, or the resident set of the process.

    Args:
        device: Device of the trial. On a CPU without Linux, the peak since the start of the process is reported.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5")  # resets the peak resident set size
            except OSError:
                return

    def read(self) -> int:
        """Return the peak in bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if sys.platform == "linux":
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def free_memory(device: torch.device) -> float:
    """Return the bytes available to a trial: free GPU memory, or free RAM scaled by its share of the CPU threads.

    A memory limit of the control group (cgroup v2), as in a container, is respected.

    Args:
        device: Device of the trial.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (words := limit.read_text().strip()).isdigit():
        free = min(free, int(words) - int(used.read_text()))
    return free * min(1.0, torch.get_num_threads() / (os.cpu_count() or 1))


def release_memory(device: torch.device) -> None:
    """Return the memory of a finished trial to the system, for workers that run many trials.

    Args:
        device: Device of the trial; on a GPU, the cache of its allocator is emptied, too.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):
            return
