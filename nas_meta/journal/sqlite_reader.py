"""Reads the SQLite file of a journal without writing a byte, from read-only folders and from untrusted sources.

A journal has three states. Closed: the file is opened as immutable, so SQLite needs no files next to it. Open in a
search, or left by one that died: SQLite reads the write-ahead log next to it. Left by one that died in a read-only
folder: SQLite would have to create the log's index there, so a temporary copy is read.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from nas_meta.core.files import regular_file
from nas_meta.errors import RunError
from nas_meta.journal.schema import INTERRUPTED, MOST_SECONDS, check_tables, limit, limit_time

SIBLINGS = ("-wal", "-shm", "-journal")
MOST_BYTES = 2**30  # of the rows of one query, also of a larger file
SLACK = 2**20  # bytes of rows beyond the size of the file


def read_rows(path: Path, query: str, *values: object) -> list[tuple]:
    """Return all rows of a query.

    Args:
        path: The SQLite file.
        query: The query.
        *values: Values of its placeholders.

    Returns:
        The rows.

    Raises:
        RunError: Not all rows can be read.
    """
    rows, error = read_some(path, query, *values)
    if error:
        raise RunError(f"{path} cannot be read: {error}")
    return rows


def read_some(path: Path, query: str, *values: object) -> tuple[list[tuple], str | None]:
    """Return the rows of a query up to the first damaged page.

    Args:
        path: The SQLite file.
        query: The query.
        *values: Values of its placeholders.

    Returns:
        The rows, and what SQLite says about the damage; None without damage.

    Raises:
        RunError: The path is not a regular file, it cannot be opened, or it holds more than the tables of a journal.
    """
    try:
        while True:
            before, rows, damage = path.stat(), [], None
            try:
                with _connected(path) as db, closing(db.execute(query, values)) as cursor:
                    left = _most_bytes(path)
                    for row in cursor:
                        rows.append(row)
                        left -= sum(len(value) if isinstance(value, (str, bytes)) else 1 for value in row)
                        if left < 0:
                            raise RunError(f"{path} cannot be read: its rows are larger than the file")
            except sqlite3.Error as error:
                damage = str(error)
                if damage == INTERRUPTED:
                    raise RunError(
                        f"{path} cannot be read: a query did not end within {MOST_SECONDS:g} seconds"
                    ) from error
            after = path.stat()
            # Read again if the file was written in the meantime: an immutable file is read without locks.
            if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
                return rows, damage
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


def _most_bytes(path: Path) -> int:
    """Return the largest size of the rows of a query.

    A crafted file can name the same page again and again, so that a few kilobytes become endless rows.
    """
    wal = path.with_name(f"{path.name}-wal")
    return min(path.stat().st_size + (wal.stat().st_size if wal.exists() else 0), MOST_BYTES) + SLACK


def check_files(path: Path) -> None:
    """Check that an SQLite file and the files next to it are regular files.

    Args:
        path: The SQLite file.

    Raises:
        OSError: One of them is a link, a folder, a pipe or a device.
    """
    regular_file(path)
    for sibling in SIBLINGS:
        neighbour = path.with_name(path.name + sibling)
        if neighbour.is_symlink() or (neighbour.exists() and not neighbour.is_file()):
            raise OSError(0, f"{neighbour.name} next to it is not a regular file", str(path))


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    check_files(path)
    wal = path.with_name(f"{path.name}-wal")
    if not wal.exists() or wal.stat().st_size == 0:
        # The journal is closed and complete.
        with closing(_opened(path, "immutable=1")) as db:
            check_tables(db, path)
            yield db
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            # A search writes to the journal, or died. If the log's index is missing and the folder is read-only, SQLite
            # refuses to open the file.
            db = _opened(path, "mode=ro")
            db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            for name in (path, wal):
                shutil.copyfile(name, Path(folder) / name.name)
            db = _opened(Path(folder) / path.name, "mode=rwc")
        with closing(db):
            check_tables(db, path)
            yield db


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, isolation_level=None)
    limit(db)
    limit_time(db)
    # With writable_schema, SQLite also reads the undamaged part of a truncated file.
    for setting in ("query_only=ON", "writable_schema=ON"):
        db.execute(f"PRAGMA {setting}")
    return db
