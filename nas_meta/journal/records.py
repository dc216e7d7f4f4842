"""Rows of the journal: trials, and what passed between the search and its strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from nas_meta.space.architecture import Architecture


@dataclass(frozen=True)
class Trial:
    """One trial as it stands in the journal.

    Attributes:
        architecture: the value of every choice that has an effect.
        fidelity: meta-training steps: while it runs those that are planned, then those that were taken.
        planned: those that it would have taken if nothing ended it early.
        status: ``running``, ``completed``, ``failed``, ``stopped`` or ``timed-out``.
        metrics: of a stopped trial what stood at its last rung; empty if it failed or was interrupted.
        started, finished: seconds since the epoch.
    """

    id: int
    architecture: Mapping[str, Any]
    seed: int
    fidelity: int
    status: str = "running"
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    started: float = 0.0
    finished: float | None = None
    planned: int = 0

    @cached_property
    def architecture_id(self) -> str:
        return Architecture(self.architecture).id

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {**asdict(self), "architecture_id": self.architecture_id}


@dataclass(frozen=True)
class AskTellEvent:
    """Something that the search and its strategy said to each other; in their order these are the strategy's history.

    Attributes:
        kind: ``asked`` the strategy for a proposal, or ``told`` it how a trial ended.
        trial: the one that was proposed or has ended; None where nothing was proposed.
    """

    kind: str
    trial: int | None = None
