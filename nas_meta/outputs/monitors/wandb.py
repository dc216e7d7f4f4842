"""A logger for Weights & Biases, below the run directory.

One W&B run for each search: a row of its history for each trial, with the choices of the architecture beside the
metrics, as its charts of parameters against results want them, and the best in its summary. A W&B run for each trial
would take longer to begin than a short trial takes, and fill a project with thousands of runs; curves within a trial
are TensorBoard's, and stand in its log.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.monitor import Monitor

FOLDER = "wandb"


class WandbLog(Monitor):
    """The W&B run of a search; a search that goes on, goes on with the same.

    Args:
        created: when the search was, by its journal: with the directory's name, who it is to W&B.
        document: its config.
    """

    def __init__(
        self, directory: Path, created: float, document: Mapping[str, Any], project: str, mode: str
    ):  # fmt: skip
        folder = directory / FOLDER
        folder.mkdir(exist_ok=True)
        identity = hashlib.sha256(f"{directory.resolve().name} {created}".encode()).hexdigest()[:12]
        with _kept_in(folder):
            import wandb

            self._run = wandb.init(
                project=project, mode=mode, dir=str(directory), name=directory.resolve().name, config=dict(document),
                id=identity, resume="allow" if mode == "online" else None, reinit="create_new",
                settings=wandb.Settings(
                    silent=True, console="off", disable_git=True, save_code=False,
                    x_disable_stats=True, x_disable_meta=True,
                ),
            )  # fmt: skip
        self._run.define_metric("trial")
        self._run.define_metric("*", step_metric="trial")

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        seconds = (trial.finished or trial.started) - trial.started
        row = {"trial": trial.id, "status": trial.status, "steps": trial.fidelity, "seconds": seconds}
        choices = {f"architecture/{name}": value for name, value in trial.architecture.items() if value is not None}
        self._run.log({**row, **trial.metrics, **choices})
        if leaderboard.leader:
            best = {f"best/{name}": value for name, value in leaderboard.leader.metrics.items()}
            self._run.summary.update({"best/trial": leaderboard.leader.id, **best})

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        self._run.summary.update({"phase": phase})
        self._run.finish(exit_code=0 if phase == "done" else 1)


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """What W&B writes into the user's home otherwise goes to a folder; errors of its own it reports to nobody."""
    wanted = {"WANDB_CACHE_DIR": str(folder), "WANDB_DATA_DIR": str(folder), "WANDB_ERROR_REPORTING": "false"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
