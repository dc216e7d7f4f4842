"""Startup time: of ``nas-meta --help``, and from ``nas-meta search`` until the first trial runs.

usage: python -m benchmarks.run startup
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.table import Table

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from nas_meta.cli.main import main; main()"]
REPEATS = 5


def help_seconds() -> float:
    """Median seconds of ``nas-meta --help``."""
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return median(taken)


def first_trial_seconds() -> tuple[float, float]:
    """Runs the quickstart with two one-step trials.

    Returns:
        Seconds from the command until the first meta-training step is done, and until the first trial is submitted.
    """
    from nas_meta.journal.database import Journal

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        config = ROOT / "configs" / "quickstart.yaml"
        started = time.time()
        process = subprocess.Popen(
            [*COMMAND, "search", str(config), "--run-dir", str(run), "--set", "budget.trials=2", "--set",
             "learner.steps=1", "--set", "evaluation.episodes=2"],
            stdout=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
        process.wait()
        journal = Journal.open(run)
        trials = journal.trials()
        journal.close()
    # A trial has one step and two episodes, so it ends within a fraction of a second of its first step.
    return min(t.finished for t in trials) - started, min(t.started for t in trials) - started


def measure() -> Table:
    """Median seconds, one row per event."""
    running, submitted = zip(*(first_trial_seconds() for _ in range(3)), strict=True)
    return Table(
        ("command", "seconds"),
        [
            ["`nas-meta --help` (median of 5)", f"{help_seconds():.2f}"],
            ["`nas-meta search configs/quickstart.yaml` until the first trial is submitted (median of 3)",
             f"{median(submitted):.1f}"],
            ["... until that trial's first step is done: workers started, torch imported", f"{median(running):.1f}"],
        ],
    )  # fmt: skip
