"""Evaluation mode for a block of code: without dropout and gradients, the model's training mode restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@contextmanager
def inference(model: Model) -> Iterator[Model]:
    """Put a model into evaluation mode and disable gradients inside the block.

    The training mode is restored when the block ends, also after an exception. As with ``nn.Module.train``, the mode
    of the outermost module is applied to all of its submodules.

    Args:
        model: Module to evaluate, in training or evaluation mode.

    Yields:
        The same module, in evaluation mode.

    Example::

        with inference(model):
            width = model(input_ids, attention_mask).last_hidden_state.shape[-1]
    """
    training = model.training
    try:
        with torch.no_grad():
            yield model.eval()
    finally:
        model.train(training)
