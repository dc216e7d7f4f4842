"""What the initial weights, pretrained or random, already tell: how well the learner classifies before any training."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nas_meta.evaluation.proxies.base import ProxyInputs
from nas_meta.models.encoder import Encoder


def untrained(encoder: Encoder, sample: ProxyInputs) -> float:
    """Minus the cross-entropy of the learner's logits of the query examples, mean over the episodes."""
    losses = []
    for task in sample.tasks:
        logits = sample.learner.classify(encoder, sample.pool, task)
        losses.append(F.cross_entropy(logits.detach().float().cpu(), torch.from_numpy(task.labels)).item())
    return -sum(losses) / len(losses)
