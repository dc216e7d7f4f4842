"""The learner's loss with the initial weights, pretrained or random, before any training."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nas_meta.evaluation.proxies.base import ProxyInputs
from nas_meta.models.encoder import Encoder


def untrained(encoder: Encoder, inputs: ProxyInputs) -> float:
    """Return the negative cross-entropy of the learner on the query examples, averaged over the episodes.

    Args:
        encoder: The untrained model.
        inputs: The episodes and the learner.
    """
    losses = []
    for task in inputs.tasks:
        logits = inputs.learner.classify(encoder, inputs.pool, task)
        losses.append(F.cross_entropy(logits.detach().float().cpu(), torch.from_numpy(task.labels)).item())
    return -sum(losses) / len(losses)
