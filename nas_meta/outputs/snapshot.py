"""A run at one moment: its trials are read once, however often they are used."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.strategy.stopping.rule import RungReport


class Snapshot(Run):
    """A run whose trials, rung reports and meta-test do not change while something is computed from them."""

    @cached_property
    def trials(self) -> list[Trial]:  # type: ignore[override]
        """Every trial, in the order of their start."""
        return super().trials

    @cached_property
    def rung_reports(self) -> list[tuple[RungReport, bool]]:  # type: ignore[override]
        """What trials reported at rungs, in order, and whether they continued."""
        return super().rung_reports

    @cached_property
    def report(self) -> Any:  # type: ignore[override]
        """The meta-test results of trials and references; empty until the search has ended."""
        return super().report


def snapshot(run: Run) -> Snapshot:
    """Return a run as it is now.

    Args:
        run: The run; a snapshot is returned as it is.
    """
    return run if isinstance(run, Snapshot) else Snapshot(run.directory, run.allow_plugins)
