"""Importance scores of attention heads and feed-forward neurons on few-shot episodes, for structured pruning.

A unit is a head or a neuron. The methods are:

- ``taylor``: First-order change of the loss if the unit's output a is set to zero, |a · ∂L/∂a|. For heads this is
  equation 2 of Michel, Levy and Neubig 2019, "Are Sixteen Heads Really Better than One?", for neurons equation 7 of
  Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference". Hou et al. 2020,
  "DynaBERT", use both. The loss L is that of a prototypical network on meta-train episodes.
- ``wanda``: Σ |W_ij| · ‖X_j‖₂ over the weights W of the projection after the unit and its inputs X on the texts of
  those episodes (Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models", equation 1,
  summed over the columns of a unit, because a unit is removed as a whole).
- ``magnitude``: Euclidean norm of all weights of the unit: its rows in the projections before it and its columns in the
  projection after it (Li et al. 2017, "Pruning Filters for Efficient ConvNets"). Needs no texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from nas_meta.learners.protonet import ProtoNet
from nas_meta.models.encoder import Encoder
from nas_meta.models.families import GROUP, HEAD, NEURON, Family, family_of
from nas_meta.tasks.episodes import Episode, EpisodeShape, episodes
from nas_meta.tasks.pool import Pool
from search_spaces.slicing import LayerParts, features, layers_of, parts_of

Scores = tuple[list[Tensor], list[Tensor]]
"""For every layer the scores of its heads, and for every layer the scores of its neurons."""


def importance(
    model: nn.Module, pool: Pool, count: int, seed: int, by: str = "taylor", pooling: str = "mean"
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Score the heads and neurons of a model on 5-way 1-shot episodes.

    Args:
        model: The pretrained model; it is switched to evaluation mode.
        pool: Texts from which episodes are drawn; with fewer than 5 classes, episodes have as many ways as classes.
        count: Number of episodes.
        seed: Seed of the episodes.
        by: A key of :data:`METHODS`.
        pooling: How token states are pooled into embeddings.

    Returns:
        Scores of heads ``[layers, heads]`` and of neurons ``[layers, neurons]``, each row scaled to unit Euclidean
        norm, as Michel et al. do.
    """
    model.eval()
    ways = min(5, pool.most_ways)
    tasks = list(episodes(pool, EpisodeShape(ways, 1, 1), seed, count))
    layers, family = layers_of(model), family_of(model.config)
    assert family is not None
    parts = [parts_of(layer, family) for layer in layers]
    heads, neurons = METHODS[by](Encoder(model, pooling), parts, pool, tasks)
    return (
        F.normalize(torch.stack(heads), dim=-1).numpy(),
        F.normalize(torch.stack(neurons), dim=-1).numpy(),
    )


def taylor(encoder: Encoder, parts: Sequence[LayerParts], pool: Pool, tasks: Sequence[Episode]) -> Scores:
    """Score units by |a · ∂L/∂a| of each text, summed over texts.

    Args:
        encoder: The model with its pooling.
        parts: Output projections and sizes of each layer.
        pool: Pool of the episodes.
        tasks: The episodes.

    Returns:
        Scores of heads and of neurons, both by layer.
    """
    heads, neurons = [torch.zeros(p.heads) for p in parts], [torch.zeros(p.neurons) for p in parts]

    def record(total: Tensor, width: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            activation = inputs[0]

            def add(gradient: Tensor) -> None:
                # [batch, tokens, units * width] -> scores [batch, units] of each text, then their sum over texts
                product = (activation.detach() * gradient).unflatten(-1, (-1, width)).sum(dim=(1, 3))
                total.add_(product.abs().sum(0))

            activation.register_hook(add)

        return hook

    handles = []
    for p, head, neuron in zip(parts, heads, neurons, strict=True):
        handles.append(p.outward.register_forward_pre_hook(record(head, p.head_size)))
        handles.append(p.down.register_forward_pre_hook(record(neuron, 1)))
    learner = ProtoNet()
    encoder.one_text_a_row = True
    try:
        for task in tasks:
            learner.meta_loss(encoder, pool, task).backward()
    finally:
        for handle in handles:
            handle.remove()
        encoder.model.zero_grad(set_to_none=True)
    return heads, neurons


def wanda(encoder: Encoder, parts: Sequence[LayerParts], pool: Pool, tasks: Sequence[Episode]) -> Scores:
    """Score units by Σ |W_ij| · ‖X_j‖₂ over their columns j, with X from all tokens of the episodes' distinct texts.

    Args:
        encoder: The model with its pooling.
        parts: Output projections and sizes of each layer.
        pool: Pool of the episodes.
        tasks: The episodes.

    Returns:
        Scores of heads and of neurons, both by layer.
    """
    squares = {linear: torch.zeros(features(linear)[0]) for p in parts for linear in (p.outward, p.down)}

    def add(linear: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        squares[linear].add_(inputs[0].square().flatten(0, -2).sum(0))

    handles = [linear.register_forward_pre_hook(add) for linear in squares]
    texts = np.unique(np.concatenate([task.indices for task in tasks]))
    lengths = pool.lengths[texts]
    try:
        with torch.no_grad():
            # Batches of equally long texts: padding would add its own activations.
            for length in np.unique(lengths):
                ids, mask = map(torch.from_numpy, pool.batch(texts[lengths == length]))
                encoder.model(input_ids=ids, attention_mask=mask)
    finally:
        for handle in handles:
            handle.remove()

    def columns(linear: nn.Linear, width: int) -> Tensor:
        weights = _by_outputs(linear).abs().sum(0) * squares[linear].sqrt()
        return weights.unflatten(0, (-1, width)).sum(1)

    return [columns(p.outward, p.head_size) for p in parts], [columns(p.down, 1) for p in parts]


def magnitude(encoder: Encoder, parts: Sequence[LayerParts], pool: Pool, tasks: Sequence[Episode]) -> Scores:
    """Score units by the Euclidean norm of all their weights, without biases.

    The weights of a key-value head count for each of its query heads.

    Args:
        encoder: The model with its pooling.
        parts: Projections and sizes of each layer.
        pool: Unused.
        tasks: Unused.

    Returns:
        Scores of heads and of neurons, both by layer.
    """
    family = family_of(encoder.model.config)
    assert family is not None
    scores = [_norms(p, family) for p in parts]
    return [heads for heads, _ in scores], [neurons for _, neurons in scores]


def _norms(parts: LayerParts, family: Family) -> tuple[Tensor, Tensor]:
    """Norms of the weights of heads and of neurons."""
    squares = {
        HEAD: _by_outputs(parts.outward).square().sum(0).unflatten(0, (parts.heads, -1)).sum(1),
        NEURON: _by_outputs(parts.down).square().sum(0),
    }
    for role, linear in parts.inward.items():
        projection = family.inward[role]
        rows = _by_outputs(linear).square().sum(1)
        total = {HEAD: parts.heads, GROUP: parts.groups, NEURON: parts.neurons}[projection.unit]
        units = rows.view(projection.blocks, total, -1).sum((0, 2))
        if projection.unit == GROUP:
            units = units.repeat_interleave(parts.group_heads)
        squares[NEURON if projection.unit == NEURON else HEAD] += units
    return squares[HEAD].sqrt(), squares[NEURON].sqrt()


def _by_outputs(linear: nn.Module) -> Tensor:
    """The weight of a projection, ``[outputs, inputs]``."""
    weight = linear.weight.detach()
    return weight.T if isinstance(linear, Conv1D) else weight


METHODS: dict[str, Callable[[Encoder, Sequence[LayerParts], Pool, Sequence[Episode]], Scores]] = {
    "taylor": taylor,
    "wanda": wanda,
    "magnitude": magnitude,
}
