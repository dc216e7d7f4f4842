"""Meta-SGD (Li et al. 2017, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning").

θ' = θ - α ∘ ∇L_support(θ) where α has θ's shape and is meta-learned with θ (equation 1): direction, rate and
initialisation together. The paper takes one inner step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from nas_meta.learners.maml import HEAD, MAML, MAMLOptions
from nas_meta.models.encoder import Encoder


class MetaSGDOptions(MAMLOptions):
    """Options of Meta-SGD."""

    inner_steps: int = Field(1, ge=1, description="gradient steps on a support set while meta-training; 1 in the paper")
    inner_lr: float = Field(0.1, gt=0, description="where every learning rate starts, the head's at head_lr")


class MetaSGD(MAML):
    """Meta-SGD: MAML with a learned learning rate for every parameter."""

    Options = MetaSGDOptions

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        module = super().learned(encoder, ways)
        shapes = {name: p.shape for name, p in self.adapted(encoder).items()}
        shapes |= {name: p.shape for name, p in zip(HEAD, module["head"].parameters(), strict=True)}
        rates = super().rates(encoder, list(shapes))
        module["rates"] = nn.ParameterDict({key(n): torch.full(shape, rates[n]) for n, shape in shapes.items()})
        return module

    def rates(self, encoder: Encoder, names: Sequence[str]) -> Mapping[str, Tensor | float]:
        return {name: encoder.learned["rates"][key(name)] for name in names}


def key(name: str) -> str:
    """A parameter's name where dots are not allowed."""
    return name.replace(".", "/")
