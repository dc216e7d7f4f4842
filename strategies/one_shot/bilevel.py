"""Bilevel optimisation: weights learn on some classes, the architecture on others; gradients of the upper level.

A loss is a function of two mappings from names to tensors, the weights w and the architecture parameters α. The
gradients therefore need no knowledge of models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas_meta.errors import ConfigError
from nas_meta.learners.base import Learner
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool

Tensors = Mapping[str, Tensor]
Loss = Callable[[Tensors, Tensors], Tensor]


def split_classes(pool: Pool, held_out: float, ways: int, seed: int) -> tuple[Pool, Pool]:
    """Split the classes of a pool at random: one part for the weights, the other for the architecture.

    Args:
        pool: The pool to split.
        held_out: The share of the classes that is held out for the architecture.
        ways: The number of classes per episode.
        seed: The seed of the split.

    Returns:
        The pool of the weights and the pool of the architecture. Their classes are disjoint.

    Raises:
        ConfigError: A part has fewer classes than an episode.
    """
    rng = np.random.default_rng(seed)
    if pool.groups:
        return _split_groups(pool, held_out, ways, rng)
    order = rng.permutation(len(pool.classes))
    cut = len(order) - round(held_out * len(order))
    if min(cut, len(order) - cut) < ways:
        raise ConfigError(
            f"strategy.held_out is {held_out:g}, which leaves {cut} of {len(order)} meta-train classes for the weights "
            f"and {len(order) - cut} for the architecture; expected at least {ways} for each, the classes of an episode"
        )
    lower, upper = (_classes(pool, np.sort(part)) for part in (order[:cut], order[cut:]))
    assert not set(lower.classes) & set(upper.classes)
    return lower, upper


def _split_groups(pool: Pool, held_out: float, ways: int, rng: np.random.Generator) -> tuple[Pool, Pool]:
    """Split the groups of a pool instead of its classes; each part needs a group with the classes of an episode."""
    order = rng.permutation(len(pool.choices))
    cut = len(order) - round(held_out * len(order))
    parts = [[pool.choices[group] for group in part] for part in (order[:cut], order[cut:])]
    if any(max(map(len, part), default=0) < ways for part in parts):
        raise ConfigError(
            f"strategy.held_out is {held_out:g}, which gives {cut} of {len(order)} meta-train groups to the weights "
            f"and {len(order) - cut} to the architecture; expected a group of at least {ways} classes for each"
        )
    lower, upper = (_classes(pool, np.sort(np.concatenate(part))) for part in parts)
    return lower, upper


def _classes(pool: Pool, selected: np.ndarray) -> Pool:
    """The pool restricted to some classes; examples of the others stay in it, with the label -1."""
    new_label = np.full(len(pool.classes), -1)
    new_label[selected] = np.arange(len(selected))
    groups = [pool.groups[c] for c in selected] if pool.groups else ()
    classes = [pool.classes[c] for c in selected]
    names = None if pool.name_rows is None else pool.name_rows[selected]
    return replace(pool, classes=classes, labels=new_label[pool.labels], groups=groups, name_rows=names)


class EpisodeLoss(nn.Module):
    """A learner's loss on an episode, as a function of the encoder's parameters.

    Args:
        learner: Defines the loss.
        encoder: The encoder with the supernet.
        upper: Returns whether a parameter, given by its name in ``encoder.named_parameters()``, is an architecture
            parameter.
    """

    def __init__(self, learner: Learner, encoder: Encoder, upper: Callable[[str], bool]):
        super().__init__()
        self.learner, self.encoder, self._is_upper = learner, encoder, upper

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The trainable weights, which learn on the lower level, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad and not self._is_upper(name)}

    @property
    def alphas(self) -> dict[str, nn.Parameter]:
        """The architecture parameters, which learn on the upper level, by name."""
        return {name: p for name, p in self.named_parameters() if self._is_upper(name)}

    def forward(self, pool: Pool, episode: Episode) -> Tensor:
        return self.learner.meta_loss(self.encoder, pool, episode)

    def of(self, pool: Pool, episode: Episode) -> Loss:
        """Return the loss on one episode as a function of weights and architecture parameters.

        Args:
            pool: The examples.
            episode: The episode.

        Returns:
            A function of two mappings from names to tensors that returns a scalar tensor.
        """
        return lambda weights, alphas: functional_call(self, {**weights, **alphas}, (pool, episode))


def first_order(upper: Loss, weights: Tensors, alphas: Tensors) -> tuple[dict[str, Tensor], Tensor]:
    """Return the first-order gradient ∇_α L_upper(w, α), DARTS (Liu, Simonyan and Yang 2019) with ξ = 0.

    Args:
        upper: L_upper.
        weights: w.
        alphas: α; the tensors must require gradients.

    Returns:
        The gradient by the names of ``alphas``, and the scalar loss.
    """
    loss = upper(weights, alphas)
    return _gradient(loss, alphas), loss.detach()


def second_order(
    lower: Loss, upper: Loss, weights: Tensors, alphas: Tensors, rate: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the second-order gradient ∇_α L_upper(w - ξ ∇_w L_lower(w, α), α) of DARTS (Liu et al. 2019, equation 7).

    With w' = w - ξ ∇_w L_lower(w, α), it is ∇_α L_upper(w', α) - ξ ∇²_{α,w} L_lower(w, α) ∇_{w'} L_upper(w', α). It is
    exact, by differentiating through the step; the paper's code approximates it by the finite difference of its
    equation 8.

    Args:
        lower: L_lower.
        upper: L_upper.
        weights: w; the tensors must require gradients.
        alphas: α; the tensors must require gradients.
        rate: ξ, the learning rate of the step.

    Returns:
        The gradient by the names of ``alphas``, and the scalar loss L_upper(w', α).
    """
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        slope = _gradient(lower(weights, alphas), weights, create_graph=True)
        moved = {name: w - rate * slope[name] for name, w in weights.items()}
        loss = upper(moved, alphas)
        return _gradient(loss, alphas), loss.detach()


def _gradient(loss: Tensor, at: Tensors, create_graph: bool = False) -> dict[str, Tensor]:
    """The gradient of a loss by the names of ``at``; zeros for tensors that the loss does not depend on."""
    gradients = torch.autograd.grad(
        loss, list(at.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(at, gradients, strict=True))
