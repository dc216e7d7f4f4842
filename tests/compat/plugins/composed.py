"""A space of two others, whose second part is there or not.

FROZEN: written against nas-meta 0.1. Never edited to make a test pass, for an author's own plugin is not either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from nas_meta import Architecture, ComposedSpace, PluginOptions, SubSpace


class Sum(nn.Module):
    """The embeddings of two models beside each other."""

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return torch.cat([model(input_ids=input_ids, attention_mask=attention_mask) for model in self.models], -1)


class PairOptions(PluginOptions):
    """Options of the space."""

    one: SubSpace = Field(description="a space whose models give a state for each token")
    two: SubSpace = Field(description="another one")


class Pair(ComposedSpace):
    """One space, and with it another or not."""

    Options = PairOptions
    options: PairOptions

    def own_choices(self) -> Mapping[str, Sequence[bool]]:
        return {"both": [False, True]}

    def conditions(self) -> Mapping[str, Mapping[str, bool]]:
        return {"two": {"both": True}}

    def build(self, architecture: Architecture) -> nn.Module:
        return Sum([self.build_part(architecture, name) for name in self.present(architecture)])
