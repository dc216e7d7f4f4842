"""Meta-SGD (Li et al. 2017, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning").

θ' = θ - α ∘ ∇L_support(θ), where α has the shape of θ and is meta-learned together with it (equation 1): the learner
learns the initialisation, the direction and the learning rate of the inner loop. The paper takes one inner step.
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

    inner_steps: int = Field(
        1, ge=1, description="gradient steps on a support set during meta-training; 1 in the paper"
    )
    inner_lr: float = Field(0.1, gt=0, description="initial value of the learned rates α; the head's start at head_lr")


class MetaSGD(MAML):
    """Meta-SGD: MAML with a learned learning rate for every parameter."""

    Options = MetaSGDOptions

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        module = super().learned(encoder, ways)
        shapes = {name: p.shape for name, p in self.adapted(encoder).items()}
        shapes |= {name: p.shape for name, p in zip(HEAD, module["head"].parameters(), strict=True)}
        rates = super().rates(encoder, list(shapes))
        module["rates"] = nn.ParameterDict(
            {parameter_key(n): torch.full(shape, rates[n]) for n, shape in shapes.items()}
        )
        return module

    def rates(self, encoder: Encoder, names: Sequence[str]) -> Mapping[str, Tensor | float]:
        return {name: encoder.learned["rates"][parameter_key(name)] for name in names}


def parameter_key(name: str) -> str:
    """Return a parameter's name as a key of ``nn.ParameterDict``, which allows no dots."""
    return name.replace(".", "/")
