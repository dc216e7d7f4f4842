"""The tables of a journal, and the checks that an SQLite file from somebody else is nothing but these tables.

SQLite executes parts of a file's schema: triggers, views, generated columns, and checks of columns. A schema is
therefore compared with :data:`SCHEMA` before the first query, and limits bound what SQLite spends on a damaged or
crafted file.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from nas_meta.errors import RunError

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
STATEMENTS = [statement.strip() for statement in SCHEMA.split(";") if statement.strip()]
TABLES = {statement.split()[2]: statement for statement in STATEMENTS}
INDEX = ("index", "sqlite_autoindex_info_1", "info", None)  # of the primary key of info
MOST_SECONDS = 60.0  # of one query
INTERRUPTED = "interrupted"  # SQLite's message after that time
LIMITS = {  # by the names of sqlite3's constants, which exist from Python 3.11
    "SQLITE_LIMIT_LENGTH": 256 * 2**20,  # bytes of a value or row
    "SQLITE_LIMIT_SQL_LENGTH": 10_000,  # bytes of a statement, also of those in the schema
    "SQLITE_LIMIT_COLUMN": 100,
    "SQLITE_LIMIT_EXPR_DEPTH": 100,
    "SQLITE_LIMIT_ATTACHED": 0,
    "SQLITE_LIMIT_TRIGGER_DEPTH": 1,
    "SQLITE_LIMIT_WORKER_THREADS": 0,
}
MAGIC = bytes.fromhex("d9d505f920a163d7")  # ends a rollback journal that names a super-journal
OPCODES = 10_000  # of SQLite's virtual machine between two looks at the clock


def limit(db: sqlite3.Connection) -> None:
    """Keep an SQLite file from executing anything, and bound what SQLite spends on it.

    Args:
        db: The connection, before its first query.
    """
    if hasattr(db, "setlimit"):  # from Python 3.11
        for name, value in LIMITS.items():
            db.setlimit(getattr(sqlite3, name), value)
    for setting in ("trusted_schema=OFF", "cell_size_check=ON"):
        db.execute(f"PRAGMA {setting}")
    db.set_authorizer(_only_tables)


def limit_time(db: sqlite3.Connection, seconds: float = MOST_SECONDS) -> None:
    """Interrupt the queries of a connection after a time; SQLite then raises ``OperationalError: interrupted``.

    Args:
        db: The connection.
        seconds: Seconds from now.
    """
    end = time.monotonic() + seconds
    db.set_progress_handler(lambda: time.monotonic() > end, OPCODES)


def check_tables(db: sqlite3.Connection, path: Path, exact: bool = False) -> None:
    """Check that the schema of a file executes nothing, and that its tables are those of a journal.

    Args:
        db: The connection.
        path: The file, for the message.
        exact: Require that all tables are defined as :data:`SCHEMA` defines them, as a file that is written needs it.
            Otherwise tables and columns may be missing or have other types, because reading validates each value, and
            there may be further tables, which are not read.

    Raises:
        RunError: The file holds something else, such as a trigger, a view or a generated column.
        sqlite3.Error: The file is damaged.
    """
    found = set()
    for kind, name, table, statement in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"):
        if (kind, name, table, statement) == INDEX:
            continue
        ordinary = kind == "table" and name == table and str(statement).upper().startswith("CREATE TABLE")
        if not ordinary or (exact and name not in TABLES):
            raise _not_ours(path, f"the {kind} '{name}'")
        if exact and statement.split() != TABLES[name].split():
            raise _not_ours(path, f"another definition of the table '{name}'")
        found.add(name)
    for name in sorted(found & TABLES.keys()):
        known = _columns(TABLES[name])
        for _, column, _, _, _, _, hidden in db.execute(f"PRAGMA table_xinfo({name})"):
            if hidden or column not in known:
                raise _not_ours(path, f"the {'generated ' if hidden else ''}column '{name}.{column}'")
    if exact and found != TABLES.keys():
        raise _not_ours(path, f"no table '{min(TABLES.keys() - found)}'")


def _columns(statement: str) -> set[str]:
    """Return the names of the columns in a statement of :data:`SCHEMA`."""
    return {column.split()[0] for column in statement.partition("(")[2].split(",")}


def _not_ours(path: Path, what: str) -> RunError:
    return RunError(f"{path} is not a journal that nas-meta wrote: it has {what}; expected the tables of a journal")


def check_rollback(path: Path) -> None:
    """Refuse a rollback journal that SQLite would act on when it opens a file for writing.

    SQLite applies such a file, and deletes the file that it names as its super-journal, wherever that is. nas-meta uses
    write-ahead logging, and rollback journals without a super-journal where the file system cannot do that.

    Args:
        path: The SQLite file.

    Raises:
        RunError: There is a rollback journal beside a file with a write-ahead log, or one that names a super-journal.
        OSError: A file cannot be read.
    """
    rollback = path.with_name(f"{path.name}-journal")
    if not rollback.exists() or rollback.stat().st_size == 0:
        return
    with path.open("rb") as file:
        logged = file.read(20)[18:] == b"\x02\x02"  # the versions for writing and reading
    with rollback.open("rb") as file:
        file.seek(max(rollback.stat().st_size - len(MAGIC), 0))
        named = file.read() == MAGIC
    if logged or named:
        raise RunError(
            f"{rollback} was not written by nas-meta, and SQLite could delete other files because of it; "
            "expected a run without this file"
        )


def _only_tables(action: int, first: str | None, second: str | None, database: str | None, view: str | None) -> int:
    """Authorise an access of SQLite unless it comes from a view or trigger."""
    return sqlite3.SQLITE_DENY if view else sqlite3.SQLITE_OK
