"""Accuracy on meta-train episodes before any training: what the initial weights, pretrained or random, already tell."""

from __future__ import annotations

import torch

from nas_meta.embedding import Encoder
from nas_meta.scores.sample import Sample


def untrained(encoder: Encoder, sample: Sample) -> float:
    """The learner's mean accuracy on the episodes."""
    return float(sample.learner.accuracies(encoder, sample.pool, sample.tasks).mean())


def untrained_loss(encoder: Encoder, sample: Sample) -> float:
    with torch.no_grad():
        return -sum(float(sample.learner.meta_loss(encoder, sample.pool, t)) for t in sample.tasks) / len(sample.tasks)
