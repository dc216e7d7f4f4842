"""Parameters, FLOPs, latency, memory and confidence intervals."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

WARM_UP = 5  # runs whose time does not count


def interval95(values: np.ndarray) -> float:
    """Half the width of the 95% confidence interval of the mean: 1.96 · s / √n, s the sample deviation."""
    if len(values) < 2:
        return math.nan
    return float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values)))


def parameters(model: nn.Module) -> int:
    """The number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def text_inputs(texts: int, tokens: int) -> dict[str, torch.Tensor]:
    """Texts of so many tokens each as models take them."""
    return dict.fromkeys(("input_ids", "attention_mask"), torch.ones(texts, tokens, dtype=torch.long))


def flops(model: nn.Module, inputs: int | Mapping[str, torch.Tensor]) -> int:
    """Floating-point operations of one forward pass (a multiply-add is two).

    Counted by ``torch.utils.flop_counter``: matrix products and convolutions only.

    Args:
        inputs: of the model, by name; or the number of tokens of one text.
    """
    device = next(model.parameters()).device
    inputs = text_inputs(1, inputs) if isinstance(inputs, int) else inputs
    was_training = model.training
    model.eval()
    # The counter knows matrix products: the math kernel makes attention visible to it on every device.
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(**{name: tensor.to(device) for name, tensor in inputs.items()})
    model.train(was_training)
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class LatencySettings:
    """What is timed for ``seconds``: passes of ``batch`` examples, texts of ``tokens``, on ``threads`` threads."""

    batch: int = 1
    tokens: int = 32
    threads: int = 1
    seconds: float = 1.0


def latency(
    model: nn.Module, settings: LatencySettings, inputs: Mapping[str, torch.Tensor] | None = None
) -> dict[str, float]:
    """The median of many forward passes and the distance of their quartiles, in seconds.

    Args:
        inputs: of the model, by name; by default texts as the settings say.

    Returns:
        ``latency`` and ``latency_iqr``.
    """
    device = next(model.parameters()).device
    inputs = text_inputs(settings.batch, settings.tokens) if inputs is None else inputs
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    timer = Timer("model(**inputs)", globals={"model": model.eval(), "inputs": inputs}, num_threads=settings.threads)
    with torch.inference_mode():
        timer.timeit(WARM_UP)
        found = timer.blocked_autorange(min_run_time=settings.seconds)
    return {"latency": found.median, "latency_iqr": found.iqr}


class PeakMemory:
    """Peak memory in bytes since the start of a trial: the GPU's allocations, or the process's resident set."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident set
            except OSError:
                return

    def read(self) -> int:
        """The peak so far, in bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if sys.platform == "linux":
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def free_memory(device: torch.device) -> float:
    """Bytes that a trial may take: what is free on its GPU; or of main memory, what its threads are of the CPUs."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and (words := limit.read_text().strip()).isdigit():
        free = min(free, int(words) - int(used.read_text()))
    return free * min(1.0, torch.get_num_threads() / (os.cpu_count() or 1))


def release_memory(device: torch.device) -> None:
    """Gives a finished trial's memory back, so that a long-lived worker starts the next one empty."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):
            return
