"""What somebody else may have made: files, read only where they end, and text, taken only where it is some."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def regular(path: str | Path, most: int | None = None) -> Path:
    """The path of a file that can be read to its end: no folder, pipe or device, which might never end.

    Args:
        most: bytes that it may have.

    Raises:
        OSError: it is something else, larger, or not there.
    """
    try:
        found = os.stat(path)
    except ValueError as error:  # a NUL in its name
        raise OSError(errno.EINVAL, "there can be no file of that name", str(path)) from error
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; expected a file", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device; expected a file", str(path))
    if most is not None and found.st_size > most:
        raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes; expected at most {most:,}", str(path))
    return Path(path)


def encodable(text: str) -> bool:
    """Whether a text is one that UTF-8, and so a tokenizer, can hold; a lone surrogate is none."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
