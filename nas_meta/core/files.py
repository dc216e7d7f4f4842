"""What somebody else may have made: files, read only where they end, and text, taken only where it is some."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from nas_meta.errors import DataError


def regular_file(path: str | Path, most: int | None = None) -> Path:
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


def is_encodable(text: str) -> bool:
    """Whether a text is one that UTF-8, and so a tokenizer, can hold; a lone surrogate is none."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_object(content: str, where: str) -> dict[str, Any]:
    """The object that a line of JSON Lines holds.

    Args:
        where: file and line, for the sentence.

    Raises:
        DataError: it is not JSON, or no object.
    """
    try:
        row = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise DataError(f"{where}: not JSON ({reason}); expected one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a {type(row).__name__}; expected an object")
    return row
