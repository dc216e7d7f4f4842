"""What a GPU refuses, refused without one: operations on tensors of different devices."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class OneDevice(TorchDispatchMode):
    """Raises a RuntimeError if an operation mixes devices, as torch does on a GPU.

    The device ``meta`` stands for the GPU: its tensors have shapes, but no data. Scalars of the CPU are allowed
    everywhere, and copies from device to device are.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()]
        devices = {x.device.type for x in tensors}
        if len(devices) > 1 and func not in COPIES:
            raise RuntimeError(f"{func} was given tensors on {' and '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))
