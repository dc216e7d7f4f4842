"""Rows of the journal: trials, and the ask and tell events of the strategy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from typing import Any

from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import METRICS, OVERVIEW
from nas_meta.space.architecture import Architecture


@dataclass(frozen=True, repr=False)
class Trial:
    """One trial of a search.

    Attributes:
        id: Number of the trial, from 1.
        architecture: Value of every choice that has an effect.
        seed: Seed of the trial.
        fidelity: Meta-training steps: planned steps while the trial runs, steps taken when it has ended.
        status: ``running``, ``completed``, ``failed``, ``stopped`` or ``timed-out``.
        metrics: Metrics by name. A stopped trial has those of its last rung; a failed or interrupted one has none.
        error: Why the trial failed or was interrupted; None otherwise.
        started: When the trial started, in seconds since the epoch.
        finished: When it ended, in seconds since the epoch; None while it runs.
        planned: Meta-training steps that the trial takes if nothing ends it early.
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
        """The id of the architecture, the same for equal architectures."""
        return Architecture(self.architecture).id

    @property
    def seconds(self) -> float | None:
        """How long the trial took, from its start to its end; None while it runs.

        This includes building the model, pre-training, meta-training, validation, all measurements, and waiting for
        pre-trained weights or for the stopping rule. Only the last attempt counts if the trial was retried.
        """
        return None if self.finished is None else max(0.0, self.finished - self.started)

    def __repr__(self) -> str:
        """Return the trial with its main metrics, short enough for a prompt."""
        shown = [f"{m.title} {m.format(self.metrics)}" for m in OVERVIEW if m.name in self.metrics]
        return f"Trial({', '.join([str(self.id), self.status, *shown])})"

    def _repr_html_(self) -> str:
        """Return the trial as a table for notebooks: its metrics, then its choices."""
        metrics = [(m.title, m.format(self.metrics)) for m in METRICS.values() if m.name in self.metrics]
        rows = [("status", self.status), *([("error", self.error)] if self.error else []), *metrics]
        rows += [(name, value) for name, value in self.architecture.items()]
        cells = "".join(
            f"<tr><th style='text-align: left'>{escape(one_line(str(name)))}</th>"
            f"<td style='text-align: left'>{escape(one_line(str(value)))}</td></tr>"
            for name, value in rows
        )
        return f"<table><caption>trial {self.id}</caption>{cells}</table>"

    def as_dict(self) -> dict[str, Any]:
        """Return the trial as plain data, as ``--json`` prints it.

        Returns:
            The attributes and ``architecture_id``.
        """
        return {**asdict(self), "architecture_id": self.architecture_id}


@dataclass(frozen=True)
class AskTellEvent:
    """One exchange between the search and its strategy; all events in their order are the strategy's history.

    Attributes:
        kind: ``asked`` if the strategy was asked for a proposal, ``told`` if it was given the outcome of a trial.
        trial: Id of the trial that was proposed or has ended; None if the strategy had no proposal.
    """

    kind: str
    trial: int | None = None
