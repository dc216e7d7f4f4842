"""What the initial weights, pretrained or random, already tell: the learner's loss before any training."""

from __future__ import annotations

import torch

from nas_meta.embedding import Encoder
from nas_meta.scores.sample import Sample


def untrained(encoder: Encoder, sample: Sample) -> float:
    """Minus the mean loss on the episodes."""
    with torch.no_grad():
        losses = [sample.learner.meta_loss(encoder, sample.pool, task).item() for task in sample.tasks]
    return -sum(losses) / len(losses)
