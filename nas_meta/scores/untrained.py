"""What the initial weights, pretrained or random, already tell: the learner's loss before any training."""

from __future__ import annotations

from nas_meta.embedding import Encoder
from nas_meta.scores.sample import Sample


def untrained(encoder: Encoder, sample: Sample) -> float:
    """Minus the mean loss on the episodes."""
    # With gradients: a learner may need some to adapt.
    losses = [sample.learner.meta_loss(encoder, sample.pool, task).item() for task in sample.tasks]
    return -sum(losses) / len(losses)
