"""A supernet: every architecture of a space in one model, with shared weights."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from nas_meta.space.architecture import Architecture


class Supernet(nn.Module, ABC):
    """What :meth:`SearchSpace.supernet` returns: a model like those that the space builds, whose shape can change.

    Its forward pass takes and returns what that of a model of the space does, computed with the architecture that was
    selected last.
    """

    @abstractmethod
    def select(self, architecture: Architecture) -> None:
        """From now on, computes this architecture."""

    @abstractmethod
    def extract(self, architecture: Architecture) -> nn.Module:
        """The stand-alone model of an architecture with a copy of its share of the weights.

        Its parameters have the names and shapes of ``space.build(architecture)``, and it gives the same outputs as the
        supernet with that architecture selected.
        """
