"""Prototype-MAML (Triantafillou et al. 2020, "Meta-Dataset", section 3).

MAML whose head is initialised for each task from the prototypes c_k of its classes. A prototypical network is a linear
layer, W_k = 2c_k and b_k = -||c_k||²: before the first step the logits are -||f(x) - c_k||² up to a constant. The
meta-gradient flows through the prototypes.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field
from torch import Tensor, nn

from nas_meta.learners.inner_loop.descent import Weights
from nas_meta.learners.maml import HEAD, MAML, MAMLOptions
from nas_meta.models.encoder import Encoder


class PrototypeMAMLOptions(MAMLOptions):
    """Options of Prototype-MAML."""

    head_lr: float | None = Field(None, gt=0, description="learning rate α of the head; null uses inner_lr")


class PrototypeMAML(MAML):
    """Prototype-MAML: MAML whose head starts from the prototypes of the support set."""

    Options = PrototypeMAMLOptions
    any_ways = True

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        return nn.Module()

    def initial_head(self, encoder: Encoder, features: Callable[[], Tensor], ways: int) -> Weights:
        support = features()
        prototypes = support.view(ways, -1, support.shape[-1]).mean(1)
        return {HEAD[0]: 2 * prototypes, HEAD[1]: -prototypes.square().sum(1)}
