"""The run's SQLite file: what happened, durably. One writer, the driver; any number of readers."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nas_meta.errors import RunError
from nas_meta.journal.records import AskTellEvent, Trial
from nas_meta.journal.row_checks import parse_json, problem_of_row, validated
from nas_meta.journal.sqlite_reader import read_rows, read_some
from nas_meta.strategy.stopping.rule import RungReport

FILE = "journal.sqlite"
VERSION = 2
SCHEMA = """
CREATE TABLE info (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, architecture_id TEXT NOT NULL, architecture TEXT NOT NULL, seed INTEGER NOT NULL,
    fidelity INTEGER NOT NULL, planned INTEGER NOT NULL, status TEXT NOT NULL, metrics TEXT NOT NULL, error TEXT,
    started REAL NOT NULL, finished REAL
);
CREATE TABLE reports (
    number INTEGER PRIMARY KEY, trial INTEGER NOT NULL, step INTEGER NOT NULL, reported TEXT NOT NULL,
    scores TEXT NOT NULL, went_on INTEGER NOT NULL
);
CREATE TABLE said (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, trial INTEGER);
"""


class Journal:
    """A run's journal, open for writing (``create``, ``append``) or for reading (``open``).

    Attributes:
        damage: what is wrong with the file, where only a part of what was asked for could be read.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection | None = None):
        self._path, self._db = path, connection
        self.damage: str | None = None

    @classmethod
    def create(cls, run_dir: Path, **info: Any) -> Journal:
        """A new journal in an existing directory; ``info`` are values under their keys, ``config`` among them.

        Raises:
            RunError: the directory cannot be written.
        """
        try:
            journal = cls(run_dir / FILE, cls._writable(run_dir / FILE))
            with journal._transaction() as db:
                for statement in filter(None, map(str.strip, SCHEMA.split(";"))):
                    db.execute(statement)
                for key, value in {"version": VERSION, "created": time.time(), **info}.items():
                    journal.set(key, value)
        except sqlite3.Error as error:
            raise RunError(f"the journal {run_dir / FILE} cannot be written: {error}") from error
        return journal

    @staticmethod
    def begun(run_dir: Path) -> bool:
        """Whether a directory has a journal; a file in which its writer came to nothing is none."""
        path = Path(run_dir) / FILE
        if not path.is_file():
            return False
        try:
            return bool(read_rows(path, "SELECT 1 FROM sqlite_master WHERE name = 'info'"))
        except RunError:
            return True

    @classmethod
    def append(cls, run_dir: Path) -> Journal:
        """An existing journal, to go on with.

        Raises:
            RunError: there is none, it is damaged, or another version wrote it.
        """
        reader = cls.open(run_dir)
        version = reader.get("version", 0)
        path = Path(run_dir) / FILE
        if version < VERSION:
            raise RunError(
                f"{path} was written by an older nas-meta (version {version}, this one writes {VERSION}): "
                "it can be read, but its search cannot go on"
            )
        try:
            return cls(path, cls._writable(path))
        except sqlite3.Error as error:
            raise RunError(f"the journal {path} cannot be written: {error}") from error

    @staticmethod
    def _writable(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        # A trial outlives a crash of the machine, not only of the process, before the strategy hears of it.
        db.execute("PRAGMA synchronous=FULL")
        return db

    @classmethod
    def open(cls, run_dir: Path) -> Journal:
        """An existing journal, for reading, also while a search writes to it.

        Raises:
            RunError: there is none, it is damaged, or a newer version wrote it.
        """
        path = Path(run_dir) / FILE
        if not path.is_file():
            raise RunError(f"{run_dir} is not a run: it has no {FILE}")
        journal = cls(path)
        version = validated(int, journal.get("version", 0), "version")
        if version > VERSION:
            raise RunError(f"{path} was written by a newer nas-meta (version {version}, this one reads {VERSION})")
        return journal

    def set(self, key: str, value: Any) -> None:
        """Stores a JSON value under a key."""
        try:
            self._db.execute("INSERT OR REPLACE INTO info VALUES (?, ?)", (key, json.dumps(value)))
        except sqlite3.Error as error:
            raise RunError(f"the journal cannot be written: {error}") from error

    def get(self, key: str, default: Any = None) -> Any:
        """The JSON value of a key."""
        rows = list(self._rows("SELECT value FROM info WHERE key = ?", key))
        return parse_json(rows[0][0]) if rows else default

    def write(self, trial: Trial, said: Sequence[AskTellEvent] = ()) -> None:
        """Stores a trial as it is now, and what was said with the strategy; both durable when this returns."""
        row = (
            trial.id, trial.architecture_id, json.dumps(dict(trial.architecture)), trial.seed, trial.fidelity,
            trial.planned, trial.status, json.dumps(dict(trial.metrics)), trial.error, trial.started, trial.finished,
        )  # fmt: skip
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            db.executemany("INSERT INTO said (kind, trial) VALUES (?, ?)", [(s.kind, s.trial) for s in said])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing, also after a crash."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise RunError(f"the journal cannot be written: {error}") from error

    def said(self) -> list[AskTellEvent]:
        """What the search and its strategy said to each other, in that order."""
        rows = self._rows("SELECT kind, trial FROM said ORDER BY number")
        validated(list[tuple[Literal["asked", "told"], int | None]], rows, "said")
        return [AskTellEvent(kind, trial) for kind, trial in rows]

    def trials(self, last: int | None = None, sort: str | None = None, smallest: bool = False) -> list[Trial]:
        """Every trial, in the order they started.

        Args:
            last: only so many of the last, or with ``sort`` of the first in that order.
            sort: by a metric instead, the largest first, or the smallest; those without it come last.
        """
        columns = "id, architecture, seed, fidelity, status, metrics, error, started, finished, planned"
        limit = -1 if last is None else last
        if sort is None:
            rows = self._from_both_ends(f"SELECT {columns} FROM trials ORDER BY id", limit)
        else:
            value = "CASE WHEN json_valid(metrics) THEN json_extract(metrics, '$.' || json_quote(?)) END"
            way = "ASC" if smallest else "DESC"
            order = f"{value} IS NULL, {value} {way}, id"
            rows = self._rows(f"SELECT {columns} FROM trials ORDER BY {order} LIMIT ?", sort, sort, limit)
        return [self._trial(row) for row in rows]

    def _trial(self, row: tuple) -> Trial:
        number, architecture, seed, fidelity, status, metrics, *rest = row
        try:
            row = (number, parse_json(architecture), seed, fidelity, status, parse_json(metrics), *rest)
            problem = problem_of_row(row)
        except RunError as error:
            problem = str(error)
        if problem is None:
            return Trial(*row)
        problem = f"row {number} of its trials cannot be read: {problem}"
        if self._db is not None or not isinstance(number, int):
            raise RunError(f"{self._path} is damaged: {problem}")
        # To be looked at, the others are still good.
        self.damage = problem
        return Trial(number, {}, 0, 0, "failed", error=problem)

    def _from_both_ends(self, query: str, limit: int) -> list[tuple]:
        """The last rows; where the file is damaged between them, those before and behind the damage."""
        backwards = f"{query} DESC LIMIT ?"
        if self._db is not None:
            return self._rows(backwards, limit)[::-1]
        last, damage = read_some(self._path, backwards, limit)
        if damage is None:
            return last[::-1]
        first, _ = read_some(self._path, query)
        if not first and not last:
            raise RunError(f"{self._path} cannot be read: {damage}")
        both = {row[0]: row for row in [*first, *last] if isinstance(row[0], int)}
        self.damage = f"{damage}; {len(both)} of its trials can be read"
        rows = [both[number] for number in sorted(both)]
        return rows if limit < 0 else rows[-limit:]

    def count(self) -> int:
        """How many trials there are."""
        query = "SELECT COUNT(*) FROM trials"
        if self._db is not None:
            return self._rows(query)[0][0]
        rows, damage = read_some(self._path, query)
        return len(self.trials()) if damage else rows[0][0]

    def metrics(self) -> Set[str]:
        """The names of all that trials have measured."""
        return {
            name
            for (name,) in self._rows(
                "SELECT DISTINCT each.key FROM trials, json_each(CASE WHEN json_valid(metrics) THEN metrics END) each"
            )
        }

    def report(self, report: RungReport, went_on: bool) -> None:
        """Stores what a trial reported at a rung and what was decided; durable when this returns."""
        row = (report.trial, report.step, json.dumps(list(report.values)), json.dumps(report.scores.tolist()), went_on)
        with self._transaction() as db:
            db.execute("INSERT INTO reports (trial, step, reported, scores, went_on) VALUES (?, ?, ?, ?, ?)", row)

    def forget_reports(self, trial: int) -> None:
        """Removes what a trial reported at rungs: it is run again."""
        with self._transaction() as db:
            db.execute("DELETE FROM reports WHERE trial = ?", (trial,))

    def reports(self) -> list[tuple[RungReport, bool]]:
        """What trials reported at rungs, in the order of the decisions, and whether they went on."""
        rows = [
            (trial, step, parse_json(values), parse_json(scores), went_on)
            for trial, step, values, scores, went_on in self._rows(
                "SELECT trial, step, reported, scores, went_on FROM reports ORDER BY number"
            )
        ]
        validated(list[tuple[int, int, list[float], list[float], int]], rows, "reports")
        return [(RungReport(trial, step, tuple(v), np.array(s)), bool(on)) for trial, step, v, s, on in rows]

    def _rows(self, query: str, *values: Any) -> list[tuple]:
        if self._db is None:
            return read_rows(self._path, query, *values)
        try:
            with closing(self._db.execute(query, values)) as rows:
                return list(rows)
        except sqlite3.Error as error:
            raise RunError(f"the journal cannot be read: {error}") from error

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
