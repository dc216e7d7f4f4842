"""Scores from the gradient of the learner's loss on meta-train episodes (Abdelfattah et al. 2021, section 3)."""

from __future__ import annotations

from nas_meta.embedding import Encoder
from nas_meta.scores.sample import Sample

EPISODES = 4


def backward(encoder: Encoder, sample: Sample) -> None:
    """Adds up the gradients of the mean loss."""
    tasks = sample.tasks[:EPISODES]
    for task in tasks:
        (sample.learner.meta_loss(encoder, sample.pool, task) / len(tasks)).backward()


def gradient_norm(encoder: Encoder, sample: Sample) -> float:
    """The Euclidean norms of the gradients of all parameter tensors, summed."""
    backward(encoder, sample)
    return sum(float(p.grad.norm()) for p in encoder.model.parameters() if p.grad is not None)


def snip(encoder: Encoder, sample: Sample) -> float:
    """Σ |θ ∂L/∂θ| (Lee, Ajanthan and Torr 2019, "SNIP", equation 6, not normalised)."""
    backward(encoder, sample)
    return sum(float((p.detach() * p.grad).abs().sum()) for p in encoder.model.parameters() if p.grad is not None)
