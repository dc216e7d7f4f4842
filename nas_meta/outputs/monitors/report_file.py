"""Write ``report.html`` into the run directory at the end of a search."""

from __future__ import annotations

from pathlib import Path

from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.run import Run
from nas_meta.outputs.monitors.monitor import Monitor


class ReportFile(Monitor):
    """Writes the report of a search that has a completed trial; like every monitor, it cannot end the search.

    Args:
        directory: Run directory.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        """Write the report, also of a search that was interrupted or that failed."""
        if leaderboard.leader is None:
            return
        from nas_meta.outputs.report.cost import Rates
        from nas_meta.outputs.report.facts import default_file
        from nas_meta.outputs.report.html import report_facts, write_report
        from nas_meta.outputs.snapshot import snapshot

        run = snapshot(Run(self.directory))
        write_report([run], report_facts([run], Rates(), phase), default_file(run))
