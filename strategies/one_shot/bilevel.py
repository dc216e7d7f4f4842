"""Two levels of learning: weights on some classes, the architecture on others, and the gradient of the second.

A loss is a function of two mappings from names to tensors, the weights w and the architecture parameters α, so that
nothing here knows of models.
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


def two_levels(pool: Pool, held_out: float, ways: int, seed: int) -> tuple[Pool, Pool]:
    """The classes of a pool, shuffled by the seed and cut in two: for the weights, and held out for the architecture.

    Args:
        held_out: the share of the classes for the architecture.
        ways: classes in an episode.

    Raises:
        ConfigError: a part has fewer classes than an episode.
    """
    rng = np.random.default_rng(seed)
    if pool.groups:
        return _two_levels_of_groups(pool, held_out, ways, rng)
    order = rng.permutation(len(pool.classes))
    cut = len(order) - round(held_out * len(order))
    if min(cut, len(order) - cut) < ways:
        raise ConfigError(
            f"strategy.held_out is {held_out:g}: of {len(order)} meta-train classes {cut} are for the weights and "
            f"{len(order) - cut} for the architecture; expected at least {ways} each, as many as an episode has"
        )
    lower, upper = (_classes(pool, np.sort(part)) for part in (order[:cut], order[cut:]))
    assert not set(lower.classes) & set(upper.classes)
    return lower, upper


def _two_levels_of_groups(pool: Pool, held_out: float, ways: int, rng: np.random.Generator) -> tuple[Pool, Pool]:
    """Cut the groups of a pool in two instead of its classes; each part needs one with the classes of an episode."""
    order = rng.permutation(len(pool.choices))
    cut = len(order) - round(held_out * len(order))
    parts = [[pool.choices[group] for group in part] for part in (order[:cut], order[cut:])]
    if any(max(map(len, part), default=0) < ways for part in parts):
        raise ConfigError(
            f"strategy.held_out is {held_out:g}, which gives {cut} of {len(order)} meta-train groups to the weights "
            f"and {len(order) - cut} to the architecture; expected one of at least {ways} classes for each"
        )
    lower, upper = (_classes(pool, np.sort(np.concatenate(part))) for part in parts)
    return lower, upper


def _classes(pool: Pool, kept: np.ndarray) -> Pool:
    """The pool with some of its classes; texts of the others stay, but are no class's."""
    place = np.full(len(pool.classes), -1)
    place[kept] = np.arange(len(kept))
    groups = [pool.groups[c] for c in kept] if pool.groups else ()
    return replace(pool, classes=[pool.classes[c] for c in kept], labels=place[pool.labels], groups=groups)


class EpisodeLoss(nn.Module):
    """A learner's loss of an episode as a function of the encoder's parameters.

    Args:
        upper: names of those parameters (``named_parameters`` of the encoder) that are the architecture's.
    """

    def __init__(self, learner: Learner, encoder: Encoder, upper: Callable[[str], bool]):
        super().__init__()
        self.learner, self.encoder, self._is_upper = learner, encoder, upper

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters that learn on the lower level."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad and not self._is_upper(name)}

    @property
    def alphas(self) -> dict[str, nn.Parameter]:
        """The architecture parameters."""
        return {name: p for name, p in self.named_parameters() if self._is_upper(name)}

    def forward(self, pool: Pool, episode: Episode) -> Tensor:
        return self.learner.meta_loss(self.encoder, pool, episode)

    def of(self, pool: Pool, episode: Episode) -> Loss:
        """The loss of one episode, a function of weights and architecture parameters."""
        return lambda weights, alphas: functional_call(self, {**weights, **alphas}, (pool, episode))


def first_order(upper: Loss, weights: Tensors, alphas: Tensors) -> tuple[dict[str, Tensor], Tensor]:
    """∇_α L_upper(w, α), DARTS (Liu, Simonyan and Yang 2019) with ξ = 0; and the loss."""
    loss = upper(weights, alphas)
    return _gradient(loss, alphas), loss.detach()


def second_order(
    lower: Loss, upper: Loss, weights: Tensors, alphas: Tensors, rate: float
) -> tuple[dict[str, Tensor], Tensor]:
    """∇_α L_upper(w - ξ ∇_w L_lower(w, α), α), DARTS (Liu, Simonyan and Yang 2019), equation 7, and that loss.

    Exact, by differentiating through the step: ∇_α L_upper(w', α) - ξ ∇²_{α,w} L_lower(w, α) ∇_{w'} L_upper(w', α),
    where the paper's code takes the finite difference of its equation 8. The tensors of ``weights`` and ``alphas`` need
    gradients.

    Args:
        rate: ξ, the learning rate of the step.
    """
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        slope = _gradient(lower(weights, alphas), weights, create_graph=True)
        moved = {name: w - rate * slope[name] for name, w in weights.items()}
        loss = upper(moved, alphas)
        return _gradient(loss, alphas), loss.detach()


def _gradient(loss: Tensor, at: Tensors, create_graph: bool = False) -> dict[str, Tensor]:
    found = torch.autograd.grad(
        loss, list(at.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(at, found, strict=True))
