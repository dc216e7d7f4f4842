"""Loading of exported causal language models, and the sizes that an architecture of ``decoder-subnet`` keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas_meta import Architecture

if TYPE_CHECKING:
    from torch import nn


def load_sliced(folder: str | Path) -> nn.Module:
    """Load an exported causal language model in its true size, whichever version of nas-meta exported it.

    Args:
        folder: An exported folder, or the folder of any causal language model. No code in it is run.

    Returns:
        The model as ``CausalStates``, in evaluation mode.
    """
    from search_spaces.pretrained.subnet_folder import load_subnet

    return load_subnet(folder, causal=True)


def widths_of(architecture: Architecture) -> dict[int, tuple[int, int, int]]:
    """Return the sizes of the layers that an architecture keeps.

    Args:
        architecture: An architecture of ``decoder-subnet``.

    Returns:
        ``(groups, heads per group, neurons)`` by the index of the pretrained layer, in order.
    """
    values = architecture.values
    layers = [int(n[len("layer") : -len(".keep")]) for n, value in values.items() if n.endswith(".keep") and value]
    sizes = {i: [values.get(f"layer{i}.{n}", 1) for n in ("groups", "heads", "ffn")] for i in sorted(layers)}
    return {i: tuple(numbers) for i, numbers in sizes.items()}
