"""How much each attention head and each feed-forward neuron matters for few-shot episodes.

First-order Taylor scores: the change of the loss when a unit's output a is set to zero is about |a · ∂L/∂a|. For heads
this is equation 2 of Michel, Levy and Neubig 2019, "Are Sixteen Heads Really Better than One?"; for neurons Molchanov
et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference", equation 7; both together are
used by Hou et al. 2020, "DynaBERT". The loss here is the prototypical network's on meta-train episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nas_meta.embedding import Encoder
from nas_meta.learners.protonet import ProtoNet
from nas_meta.tasks.episodes import EpisodeShape, episodes
from nas_meta.tasks.pool import Pool
from search_spaces.slicing import layers_of, parts_of


def importance(
    model: nn.Module, pool: Pool, count: int, seed: int, parts: Sequence[Any] | None = None, pooling: str = "mean"
) -> tuple[np.ndarray, np.ndarray]:
    """Mean scores over ``count`` 5-way 1-shot episodes of a pool.

    Args:
        parts: for each layer the projections behind its heads and neurons, and how many it has; by default those of
            the BERT family.

    Returns:
        heads ``[layers, heads]`` and neurons ``[layers, neurons]``, each row scaled to unit Euclidean norm, as
        Michel et al. do.
    """
    model.eval()
    parts = parts or [parts_of(layer) for layer in layers_of(model)]
    heads, neurons = [torch.zeros(p.heads) for p in parts], [torch.zeros(p.neurons) for p in parts]

    def record(total: torch.Tensor, unit: int):
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            activation = inputs[0]

            def add(gradient: torch.Tensor) -> None:
                # [batch, tokens, units * unit] -> a score for each text, then the sum over texts
                taylor = (activation.detach() * gradient).unflatten(-1, (-1, unit)).sum(dim=(1, 3))
                total.add_(taylor.abs().sum(0))

            activation.register_hook(add)

        return hook

    handles = []
    for p, head, neuron in zip(parts, heads, neurons, strict=True):
        handles.append(p.outward.register_forward_pre_hook(record(head, p.head_size)))
        handles.append(p.down.register_forward_pre_hook(record(neuron, 1)))
    learner, encoder = ProtoNet(), Encoder(model, pooling)
    encoder.one_text_a_row = True
    ways = min(5, len(pool.classes))
    try:
        for task in episodes(pool, EpisodeShape(ways, 1, 1), seed, count):
            learner.meta_loss(encoder, pool, task).backward()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    return (
        F.normalize(torch.stack(heads), dim=-1).numpy(),
        F.normalize(torch.stack(neurons), dim=-1).numpy(),
    )
