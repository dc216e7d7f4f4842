"""A logger for Weights & Biases, with files below the run directory.

Each search is one W&B run. Its history has one row per trial with the choices of the architecture and the metrics, so
that W&B can plot metrics against choices; its summary holds the best trial. One W&B run per trial would take longer to
start than a short trial takes, and would fill a project with thousands of runs. For curves within a trial, see
TensorBoard and the log of the trial.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nas_meta.config.environment import shareable
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.monitor import Monitor
from nas_meta.outputs.monitors.variables import variables

FOLDER = "wandb"


class WandbLog(Monitor):
    """The W&B run of a search; a resumed search continues the same W&B run.

    Args:
        directory: Run directory.
        created: When the search was created, in seconds since the epoch. With the name of the directory, it determines
            the ID of the W&B run.
        document: Config of the search as plain data; W&B gets it without hooks and the address of the cluster.
        project: W&B project.
        mode: ``offline`` or ``online``.
    """

    def __init__(
        self, directory: Path, created: float, document: Mapping[str, Any], project: str, mode: str
    ):  # fmt: skip
        folder = directory / FOLDER
        folder.mkdir(exist_ok=True)
        identity = hashlib.sha256(f"{directory.resolve().name} {created}".encode()).hexdigest()[:12]
        with _confine_to(folder):
            import wandb

            self._run = wandb.init(
                project=project, mode=mode, dir=str(directory), name=directory.resolve().name,
                config=shareable(document), id=identity,
                resume="allow" if mode == "online" else None, reinit="create_new",
                settings=wandb.Settings(
                    silent=True, console="off", disable_git=True, save_code=False,
                    x_disable_stats=True, x_disable_meta=True,
                ),
            )  # fmt: skip
        self._run.define_metric("trial")
        self._run.define_metric("*", step_metric="trial")

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        row = {"trial": trial.id, "status": trial.status, "steps": trial.fidelity, "seconds": trial.seconds or 0.0}
        choices = {f"architecture/{name}": value for name, value in trial.architecture.items() if value is not None}
        self._run.log({**row, **trial.metrics, **choices})
        if leaderboard.leader:
            best = {f"best/{name}": value for name, value in leaderboard.leader.metrics.items()}
            self._run.summary.update({"best/trial": leaderboard.leader.id, **best})

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        self._run.summary.update({"phase": phase})
        self._run.finish(exit_code=0 if phase == "done" else 1)


def _confine_to(folder: Path) -> AbstractContextManager[None]:
    """Make W&B write to a folder instead of the user's home, and keep it from reporting its own errors."""
    return variables({"WANDB_CACHE_DIR": str(folder), "WANDB_DATA_DIR": str(folder), "WANDB_ERROR_REPORTING": "false"})
