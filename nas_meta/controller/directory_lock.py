"""The lock that keeps a second search out of a run directory, on every file system.

Network file systems may lack ``flock``. POSIX record locks work on most of them; elsewhere the search runs without a
lock, with a warning.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
UNSUPPORTED = tuple(
    getattr(errno, name)
    for name in ("ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOLCK", "EINVAL", "EPERM")
    if hasattr(errno, name)
)


class Taken(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock during a block; the system releases it when the process ends in any way.

    Args:
        path: The lock file; it is created, and stays.

    Yields:
        Nothing.

    Raises:
        Taken: Another process holds the lock.
        OSError: The file cannot be opened.
    """
    if fcntl is None:
        with _file_lock(path):
            yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    try:
        for lock in (fcntl.flock, fcntl.lockf):
            try:
                lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno in TAKEN:
                    raise Taken from None
                if error.errno not in UNSUPPORTED:
                    raise
                reason = error.strerror
        else:
            log.warning("%s cannot be locked (%s): make sure that no other search uses this folder", path, reason)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Hold a lock of the package filelock, which knows Windows."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Taken from None
    try:
        yield
    finally:
        lock.release()
