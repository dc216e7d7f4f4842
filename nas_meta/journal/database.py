"""The journal of a run: an SQLite file that records everything a resumed search and its readers need.

There is one writer, the driver, and any number of readers. Every write is one transaction, which is on disk when the
call returns. The tables are ``info`` (JSON values by key), ``trials`` (one row per trial), ``reports`` (what trials
reported at rungs) and ``said`` (the ask and tell events of the strategy). Their columns are part of the file format.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nas_meta.errors import RunError
from nas_meta.journal.missing_run import why_not_a_run
from nas_meta.journal.patient_connection import TRY, PatientConnection
from nas_meta.journal.records import AskTellEvent, Trial
from nas_meta.journal.row_checks import parse_json, problem_of_row, validated
from nas_meta.journal.schema import STATEMENTS, check_rollback, check_tables, limit
from nas_meta.journal.sqlite_reader import SIBLINGS, check_files, read_rows, read_some
from nas_meta.strategy.stopping.rule import RungReport

FILE = "journal.sqlite"
VERSION = 2


class Journal:
    """The journal of a run, open for writing (``create``, ``append``) or for reading (``open``).

    Attributes:
        damage: Why some of the requested rows could not be read; None if all could.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection | None = None):
        self._path, self._db = path, connection
        self.damage: str | None = None

    @classmethod
    def create(cls, run_dir: Path, **info: Any) -> Journal:
        """Create a journal in an existing directory.

        Args:
            run_dir: The run directory.
            **info: JSON values by key, ``config`` among them.

        Returns:
            The journal, open for writing.

        Raises:
            RunError: The directory cannot be written.
        """
        path = Path(run_dir) / FILE
        if cls.exists(run_dir):
            raise RunError(f"{run_dir} already holds a run")
        try:
            # What a writer left that was killed here holds nothing; SQLite must not act on the files next to it.
            for sibling in ("", *SIBLINGS):
                path.with_name(path.name + sibling).unlink(missing_ok=True)
            journal = cls(path, cls._writable(path))
            with journal._transaction() as db:
                for statement in STATEMENTS:
                    db.execute(statement)
                for key, value in {"version": VERSION, "created": time.time(), **info}.items():
                    journal.set(key, value)
        except sqlite3.Error as error:
            raise RunError(f"the journal {path} cannot be written: {error}") from error
        except OSError as error:
            raise RunError(f"the journal {path} cannot be written: {error.strerror}") from error
        return journal

    @staticmethod
    def exists(run_dir: Path) -> bool:
        """Return whether a directory holds a journal.

        Args:
            run_dir: The directory; it need not exist.

        Returns:
            True if the file has tables, or if it is too damaged to tell; False for a file without tables, which is
            left when the writer was killed while creating it.
        """
        path = Path(run_dir) / FILE
        if not path.is_file():
            return False
        try:
            return bool(read_rows(path, "SELECT 1 FROM sqlite_master LIMIT 1"))
        except RunError:
            return True

    @classmethod
    def append(cls, run_dir: Path) -> Journal:
        """Open an existing journal for writing.

        Args:
            run_dir: The run directory.

        Returns:
            The journal.

        Raises:
            RunError: There is no journal, it is damaged, or another version wrote it.
        """
        reader = cls.open(run_dir)
        version = reader.get("version", 0)
        path = Path(run_dir) / FILE
        if version < VERSION:
            raise RunError(
                f"{path} was written by an older nas-meta (version {version}, this one writes {VERSION}); "
                "the run can be read, but not resumed"
            )
        try:
            check_files(path)
            check_rollback(path)
            return cls(path, cls._writable(path, exists=True))
        except sqlite3.Error as error:
            raise RunError(f"the journal {path} cannot be written: {error}") from error
        except OSError as error:
            raise RunError(f"the journal {path} cannot be written: {error.strerror}") from error

    @staticmethod
    def _writable(path: Path, exists: bool = False) -> sqlite3.Connection:
        # The config in it may hold secrets. SQLite gives the files next to it the same permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with suppress(OSError):  # the owner may be somebody else
            path.chmod(0o600)
        db = sqlite3.connect(path, timeout=TRY, isolation_level=None, factory=PatientConnection)
        try:
            limit(db)
            if exists:
                check_tables(db, path, exact=True)
            db.execute("PRAGMA journal_mode=WAL")
            # A commit survives a crash of the machine, not only of the process.
            db.execute("PRAGMA synchronous=FULL")
        except BaseException:
            db.close()
            raise
        return db

    @classmethod
    def open(cls, run_dir: Path) -> Journal:
        """Open an existing journal for reading, also while a search writes to it.

        Args:
            run_dir: The run directory.

        Returns:
            The journal.

        Raises:
            RunError: There is no journal, it is damaged, or a newer version wrote it.
        """
        path = Path(run_dir) / FILE
        if not path.is_file():
            raise RunError(why_not_a_run(Path(run_dir), FILE))
        journal = cls(path)
        version = validated(int, journal.get("version", 0), "version")
        if version > VERSION:
            raise RunError(f"{path} was written by a newer nas-meta (version {version}, this one reads {VERSION})")
        return journal

    def set(self, key: str, value: Any) -> None:
        """Store a value under a key.

        Args:
            key: The key; an existing value is replaced.
            value: Plain data that JSON can represent.

        Raises:
            RunError: The journal cannot be written.
        """
        try:
            self._db.execute("INSERT OR REPLACE INTO info VALUES (?, ?)", (key, json.dumps(value)))
        except sqlite3.Error as error:
            raise RunError(f"the journal cannot be written: {error}") from error

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key.

        Args:
            key: The key.
            default: Returned if the key has no value.

        Returns:
            The plain data that was stored; it is not validated.

        Raises:
            RunError: The journal cannot be read.
        """
        rows = list(self._rows("SELECT value FROM info WHERE key = ?", key))
        return parse_json(rows[0][0]) if rows else default

    def write(self, trial: Trial, events: Sequence[AskTellEvent] = ()) -> None:
        """Store a trial and the ask and tell events since the last call, in one transaction.

        Args:
            trial: The trial as it is now; it replaces an earlier row.
            events: The events, appended in their order.

        Raises:
            RunError: The journal cannot be written.
        """
        row = (
            trial.id, trial.architecture_id, json.dumps(dict(trial.architecture)), trial.seed, trial.fidelity,
            trial.planned, trial.status, json.dumps(dict(trial.metrics)), trial.error, trial.started, trial.finished,
        )  # fmt: skip
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            db.executemany("INSERT INTO said (kind, trial) VALUES (?, ?)", [(e.kind, e.trial) for e in events])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit everything in the block, or nothing, also after a crash."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise RunError(f"the journal cannot be written: {error}") from error

    def ask_tell_events(self) -> list[AskTellEvent]:
        """Return the history of the strategy: the ask and tell events in their order.

        Returns:
            The events.

        Raises:
            RunError: The journal cannot be read.
        """
        rows = self._rows("SELECT kind, trial FROM said ORDER BY number")
        validated(list[tuple[Literal["asked", "told"], int | None]], rows, "said")
        return [AskTellEvent(kind, trial) for kind, trial in rows]

    def trials(self, last: int | None = None, sort: str | None = None, smallest: bool = False) -> list[Trial]:
        """Return the trials in the order of their start, or sorted by a metric.

        Args:
            last: Return only the last trials, at most this number; with ``sort``, the first ones in that order.
            sort: The metric to sort by, largest first; trials without it come last.
            smallest: Sort the smallest value first.

        Returns:
            The trials.

        Raises:
            RunError: The journal cannot be read. Without ``sort``, a reader returns the rows that can be read, and sets
                ``damage``.
        """
        columns = "id, architecture, seed, fidelity, status, metrics, error, started, finished, planned"
        limit = -1 if last is None else last
        if sort is None:
            rows = self._from_both_ends(f"SELECT {columns} FROM trials ORDER BY id", limit)
        else:
            value = "CASE WHEN json_valid(metrics) THEN json_extract(metrics, '$.' || json_quote(?)) END"
            direction = "ASC" if smallest else "DESC"
            order = f"{value} IS NULL, {value} {direction}, id"
            rows = self._rows(f"SELECT {columns} FROM trials ORDER BY {order} LIMIT ?", sort, sort, limit)
        return [self._trial(row) for row in rows]

    def _trial(self, row: tuple) -> Trial:
        """Return the trial of a row; to a reader, a damaged row is a failed trial with the damage as its error."""
        number, architecture, seed, fidelity, status, metrics, *rest = row
        try:
            row = (number, parse_json(architecture), seed, fidelity, status, parse_json(metrics), *rest)
            problem = problem_of_row(row)
        except RunError as error:
            problem = str(error)
        if problem is None:
            return Trial(*row)
        problem = f"row {number} cannot be read: {problem}"
        if self._db is not None or not isinstance(number, int):
            raise RunError(f"{self._path} is damaged: {problem}")
        # The other rows can still be shown.
        self.damage = problem
        return Trial(number, {}, 0, 0, "failed", error=problem)

    def _from_both_ends(self, query: str, limit: int) -> list[tuple]:
        """Return the last rows of a query; around damaged pages, the rows before and after the damage.

        SQLite stops at a damaged page, so the table is read backwards and then forwards. For example, if the page with
        rows 40 to 60 of 100 is damaged, the two scans return rows 100 to 61 and 1 to 39.
        """
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
        """Return the number of trials.

        Returns:
            The number; of a damaged file, the trials that can be read.

        Raises:
            RunError: The journal cannot be read.
        """
        query = "SELECT COUNT(id) FROM trials"  # COUNT(*) could not be interrupted
        if self._db is not None:
            return self._rows(query)[0][0]
        rows, damage = read_some(self._path, query)
        return len(self.trials()) if damage else rows[0][0]

    def metrics(self) -> Set[str]:
        """Return the names of all metrics that any trial has.

        Returns:
            The names.

        Raises:
            RunError: The journal cannot be read.
        """
        return {
            name
            for (name,) in self._rows(
                # A damaged row may hold a number or a list, which have no names.
                "SELECT DISTINCT each.key FROM trials, json_each(CASE WHEN json_valid(metrics) THEN "
                "CASE json_type(metrics) WHEN 'object' THEN metrics END END) each"
            )
        }

    def report(self, report: RungReport, continued: bool) -> None:
        """Store the report of a trial at a rung, and the decision.

        Args:
            report: The report.
            continued: Whether the trial continues.

        Raises:
            RunError: The journal cannot be written.
        """
        row = (
            report.trial,
            report.step,
            json.dumps(list(report.values)),
            json.dumps(report.scores.tolist()),
            continued,
        )
        with self._transaction() as db:
            db.execute("INSERT INTO reports (trial, step, reported, scores, went_on) VALUES (?, ?, ?, ?, ?)", row)

    def forget_reports(self, trial: int) -> None:
        """Delete the rung reports of a trial that is rerun.

        Args:
            trial: The id of the trial.

        Raises:
            RunError: The journal cannot be written.
        """
        with self._transaction() as db:
            db.execute("DELETE FROM reports WHERE trial = ?", (trial,))

    def reports(self) -> list[tuple[RungReport, bool]]:
        """Return what trials reported at rungs.

        Returns:
            Each report, and whether its trial continued, in the order of the decisions.

        Raises:
            RunError: The journal cannot be read.
        """
        rows = [
            (trial, step, parse_json(values), parse_json(scores), continued)
            for trial, step, values, scores, continued in self._rows(
                "SELECT trial, step, reported, scores, went_on FROM reports ORDER BY number"
            )
        ]
        validated(list[tuple[int, int, list[float], list[float], int]], rows, "reports")
        return [(RungReport(trial, step, tuple(v), np.array(s)), bool(c)) for trial, step, v, s, c in rows]

    def _rows(self, query: str, *values: Any) -> list[tuple]:
        if self._db is None:
            return read_rows(self._path, query, *values)
        try:
            with closing(self._db.execute(query, values)) as rows:
                return list(rows)
        except sqlite3.Error as error:
            raise RunError(f"the journal cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file; a journal that is open for reading holds none open."""
        if self._db is not None:
            self._db.close()
