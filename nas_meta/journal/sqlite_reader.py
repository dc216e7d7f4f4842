"""A journal's SQLite file, read without writing a byte: also where nothing may be written, and whoever made it."""

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

SIBLINGS = ("-wal", "-shm", "-journal")


def read_rows(path: Path, query: str, *values: object) -> list[tuple]:
    """The rows of a query, as far as the file can be read.

    Raises:
        RunError: nothing of it can be read.
    """
    rows, error = read_some(path, query, *values)
    if error:
        raise RunError(f"{path} cannot be read: {error}")
    return rows


def read_some(path: Path, query: str, *values: object) -> tuple[list[tuple], str | None]:
    """The rows of a query up to where the file is damaged, and what is wrong there.

    Raises:
        RunError: it is no file, or none that SQLite can open.
    """
    try:
        while True:
            before, rows, damage = path.stat(), [], None
            try:
                with _connected(path) as db, closing(db.execute(query, values)) as found:
                    for row in found:
                        rows.append(row)
            except sqlite3.Error as error:
                damage = str(error)
            after = path.stat()
            # Read while nobody wrote to it; again where somebody began to in the meantime.
            if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
                return rows, damage
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    regular_file(path)
    for sibling in SIBLINGS:
        beside = path.with_name(path.name + sibling)
        if beside.is_symlink() or (beside.exists() and not beside.is_file()):
            raise OSError(0, f"{beside.name} beside it is no file", str(path))
    wal = path.with_name(f"{path.name}-wal")
    if not wal.exists() or wal.stat().st_size == 0:
        # Nobody has written since the file was closed: read as it lies there, no file beside it is needed.
        with closing(_opened(path, "immutable=1")) as db:
            yield db
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            # Beside a search that writes, or after one that died. Where the folder may not be written and the
            # index of the log is gone, SQLite refuses, and a copy is read.
            db = _opened(path, "mode=ro")
            db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            for name in (path, wal):
                shutil.copyfile(name, Path(folder) / name.name)
            db = _opened(Path(folder) / path.name, "mode=rwc")
        with closing(db):
            yield db


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, isolation_level=None)
    # Of a file from somebody else nothing is run: no functions of its views, and no views (they may never end).
    # With writable_schema SQLite also reads a file that was cut, as far as it goes.
    for setting in ("query_only=ON", "trusted_schema=OFF", "cell_size_check=ON", "writable_schema=ON"):
        db.execute(f"PRAGMA {setting}")
    db.set_authorizer(_only_tables)
    return db


def _only_tables(action: int, first: str | None, second: str | None, database: str | None, view: str | None) -> int:
    return sqlite3.SQLITE_DENY if view else sqlite3.SQLITE_OK
