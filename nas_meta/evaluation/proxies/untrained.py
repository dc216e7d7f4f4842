"""How well the learner does with the initial weights, pretrained or random, before any training."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nas_meta.evaluation.proxies.base import ProxyInputs
from nas_meta.learners.metric import MetricLearner
from nas_meta.models.encoder import Encoder


def untrained(encoder: Encoder, inputs: ProxyInputs) -> float:
    """Return the learner's mean accuracy on the episodes if it compares embeddings, otherwise minus its mean loss.

    Over many episodes, the accuracy ranks models better than the loss, which depends on the scale of the embeddings.
    Learners that adapt to every episode are scored on only a few, where many models would have the same accuracy.

    Args:
        encoder: The untrained model.
        inputs: The episodes and the learner.
    """
    if isinstance(inputs.learner, MetricLearner):
        return float(inputs.learner.accuracies(encoder, inputs.pool, inputs.tasks).mean())
    losses = []
    for task in inputs.tasks:
        logits = inputs.learner.classify(encoder, inputs.pool, task)
        losses.append(F.cross_entropy(logits.detach().float().cpu(), torch.from_numpy(task.labels)).item())
    return -sum(losses) / len(losses)
