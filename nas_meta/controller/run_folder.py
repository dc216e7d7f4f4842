"""The directory of a search while it runs: created, locked, and removed again if the search is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas_meta.config.given_data import FILE as DATA
from nas_meta.controller.sessions import LOCK, run_lock
from nas_meta.journal.database import Journal
from nas_meta.journal.run import new_run_dir
from nas_meta.journal.status import FILE as STATUS


@contextmanager
def run_folder(directory: str | Path | None, resumed: bool) -> Iterator[Path]:
    """Create and lock the directory of a search.

    If the search ends before it has a journal, because its config or its data are refused, what was created is removed:
    the status, the data given in memory, the lock, and the directories that are empty then. Directories that existed
    before are kept.

    Args:
        directory: The run directory; None creates one under ``runs/``.
        resumed: Whether the directory holds the run that is resumed.

    Yields:
        The directory.

    Raises:
        RunError: The directory holds another run, is in use by another search, or cannot be written.
    """
    if resumed and directory is not None:
        with run_lock(Path(directory)):
            yield Path(directory)
        return
    intended = Path("runs") / "new" if directory is None else Path(directory)
    created = [path for path in (intended, *intended.parents) if not path.exists()]
    folder = new_run_dir(directory)
    if directory is None:
        created = [folder, *created[1:]]
    try:
        with run_lock(folder):
            try:
                yield folder
            except BaseException:
                if not Journal.exists(folder):
                    for name in (STATUS, DATA, LOCK):  # while this search holds the lock: they are its own
                        (folder / name).unlink(missing_ok=True)
                raise
    except BaseException:
        for path in created:
            with suppress(OSError):
                path.rmdir()  # only if it is empty
        raise
