"""The run's SQLite file: what happened, durably. One writer, the driver; any number of readers."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas_meta.errors import RunError
from nas_meta.space import Architecture
from nas_meta.stopping import Report

FILE = "journal.sqlite"
VERSION = 1
SCHEMA = """
CREATE TABLE info (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, architecture_id TEXT NOT NULL, architecture TEXT NOT NULL, seed INTEGER NOT NULL,
    fidelity INTEGER NOT NULL, status TEXT NOT NULL, metrics TEXT NOT NULL, error TEXT,
    started REAL NOT NULL, finished REAL
);
CREATE TABLE reports (
    number INTEGER PRIMARY KEY, trial INTEGER NOT NULL, step INTEGER NOT NULL, reported TEXT NOT NULL,
    scores TEXT NOT NULL, went_on INTEGER NOT NULL
);
"""


@dataclass(frozen=True)
class Trial:
    """One trial as it stands in the journal.

    Attributes:
        architecture: the value of every choice that has an effect.
        fidelity: meta-training steps: while it runs those that are planned, then those that were taken.
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

    @cached_property
    def architecture_id(self) -> str:
        return Architecture(self.architecture).id

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {**asdict(self), "architecture_id": self.architecture_id}


class Journal:
    """A run's journal, open for writing (``create``) or for reading (``open``)."""

    def __init__(self, connection: sqlite3.Connection):
        self._db = connection

    @classmethod
    def create(cls, run_dir: Path, config: Mapping[str, Any]) -> Journal:
        """A new journal in an existing directory.

        Raises:
            RunError: the directory cannot be written.
        """
        try:
            db = sqlite3.connect(run_dir / FILE, isolation_level=None)
            db.execute("PRAGMA journal_mode=WAL")
            # A trial outlives a crash of the machine, not only of the process, before the strategy hears of it.
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise RunError(f"the journal {run_dir / FILE} cannot be written: {error}") from error
        journal = cls(db)
        journal.set("version", VERSION)
        journal.set("config", config)
        journal.set("created", time.time())
        return journal

    @classmethod
    def open(cls, run_dir: Path) -> Journal:
        """An existing journal, for reading, also while a search writes to it.

        Raises:
            RunError: there is none, it is damaged, or a newer version wrote it.
        """
        path = Path(run_dir) / FILE
        if not path.is_file():
            raise RunError(f"{run_dir} is not a run: it has no {FILE}")
        try:
            db = sqlite3.connect(path, isolation_level=None)
            db.execute("PRAGMA query_only=ON")
            journal = cls(db)
            version = journal.get("version", 0)
        except sqlite3.Error as error:
            raise RunError(f"the journal {path} cannot be read: {error}") from error
        if version > VERSION:
            raise RunError(f"{path} was written by a newer nas-meta (version {version}, this one reads {VERSION})")
        return journal

    def set(self, key: str, value: Any) -> None:
        """Stores a JSON value under a key."""
        self._db.execute("INSERT OR REPLACE INTO info VALUES (?, ?)", (key, json.dumps(value)))

    def get(self, key: str, default: Any = None) -> Any:
        """The JSON value of a key."""
        row = self._db.execute("SELECT value FROM info WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def write(self, trial: Trial) -> None:
        """Stores a trial as it is now; durable when this returns."""
        try:
            self._db.execute(
                "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    trial.id, trial.architecture_id, json.dumps(dict(trial.architecture)), trial.seed, trial.fidelity,
                    trial.status, json.dumps(dict(trial.metrics)), trial.error, trial.started, trial.finished,
                ),
            )  # fmt: skip
        except sqlite3.Error as error:
            raise RunError(f"the journal cannot be written: {error}") from error

    def trials(self) -> list[Trial]:
        """Every trial, in the order they started."""
        try:
            with closing(
                self._db.execute(
                    "SELECT id, architecture, seed, fidelity, status, metrics, error, started, finished "
                    "FROM trials ORDER BY id"
                )
            ) as rows:
                return [
                    Trial(i, json.loads(a), s, f, status, json.loads(m), e, started, finished)
                    for i, a, s, f, status, m, e, started, finished in rows
                ]
        except (sqlite3.Error, ValueError) as error:
            raise RunError(f"the journal cannot be read: {error}") from error

    def report(self, report: Report, went_on: bool) -> None:
        """Stores what a trial reported at a rung and what was decided; durable when this returns."""
        row = (report.trial, report.step, json.dumps(list(report.values)), json.dumps(report.scores.tolist()), went_on)
        try:
            self._db.execute("INSERT INTO reports (trial, step, reported, scores, went_on) VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise RunError(f"the journal cannot be written: {error}") from error

    def reports(self) -> list[tuple[Report, bool]]:
        """What trials reported at rungs, in the order of the decisions, and whether they went on."""
        try:
            with closing(
                self._db.execute("SELECT trial, step, reported, scores, went_on FROM reports ORDER BY number")
            ) as rows:
                return [
                    (Report(trial, step, tuple(json.loads(values)), np.array(json.loads(scores))), bool(went_on))
                    for trial, step, values, scores, went_on in rows
                ]
        except (sqlite3.Error, ValueError) as error:
            raise RunError(f"the journal cannot be read: {error}") from error

    def close(self) -> None:
        self._db.close()
