"""Supernets: one model that contains every architecture of a space, with shared weights."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from nas_meta.space.architecture import Architecture


class Supernet(nn.Module, ABC):
    """Base class of supernets, which :meth:`SearchSpace.supernet` returns.

    The forward pass has the same inputs and outputs as the models of the space, and computes the architecture that was
    selected last.
    """

    @abstractmethod
    def select(self, architecture: Architecture) -> None:
        """Select the architecture that later forward passes compute.

        Args:
            architecture: Any architecture of the space.
        """

    @abstractmethod
    def extract(self, architecture: Architecture) -> nn.Module:
        """Return the stand-alone model of an architecture, with a copy of its part of the shared weights.

        Args:
            architecture: Any architecture of the space; the selected one does not change.

        Returns:
            A model whose parameters have the names and shapes of ``space.build(architecture)``, and whose outputs
            equal those of the supernet with this architecture selected.
        """
