"""Files and folders that another program may have written: plain files, UTF-8 text, JSON Lines, occupied folders."""

from __future__ import annotations

import difflib
import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.errors import DataError, RunError

if TYPE_CHECKING:
    import numpy as np


def regular_file(path: str | Path, max_bytes: int | None = None) -> Path:
    """Return the path if it is a regular file, which can be read to its end.

    Reading a pipe or a device such as ``/dev/zero`` may block or never end.

    Args:
        path: Path to check; symbolic links are followed.
        max_bytes: Largest size that is accepted, in bytes. ``None`` accepts any size.

    Returns:
        The path.

    Raises:
        OSError: The file does not exist, is a folder, pipe or device, or is larger than ``max_bytes``.
    """
    try:
        status = os.stat(path)
    except ValueError as error:  # the name contains a NUL character or a lone surrogate
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; expected a file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device; expected a file", str(path))
    if max_bytes is not None and status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes; expected at most {max_bytes:,}", str(path))
    return Path(path)


def refuse_occupied(folder: Path) -> None:
    """Refuse to write into a folder that holds something.

    Args:
        folder: The folder that the user named.

    Raises:
        RunError: It is a file, or not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; expected a new or empty folder")


def similar_sibling(path: str | Path) -> str:
    """Return the clause that ends an error message about a file or folder that does not exist.

    Args:
        path: The path as the user wrote it.

    Returns:
        ``; did you mean 'PATH'?`` if a name in the same folder is similar, otherwise nothing.
    """
    if os.path.exists(path):
        return ""
    try:
        names = os.listdir(Path(path).parent)
    except (OSError, ValueError):  # the folder does not exist either, or no folder can have this name
        return ""
    close = difflib.get_close_matches(Path(path).name, names, n=1)
    return f"; did you mean '{Path(path).parent / close[0]}'?" if close else ""


def why_unreadable(path: str | Path, error: OSError) -> str:
    """Return why a file that the user named cannot be read.

    Args:
        path: The path as the user wrote it.
        error: What reading it raised.

    Returns:
        The reason of the operating system, and a file with a similar name if there is no such file.
    """
    hint = similar_sibling(path) if isinstance(error, FileNotFoundError) else ""
    return f"{error.strerror or error}{hint}"


def read_array(path: Path) -> np.ndarray:
    """Read a whole file into memory.

    Args:
        path: The file.

    Returns:
        Its bytes, ``uint8``.

    Raises:
        OSError: It is no file, it cannot be read, or it does not fit into memory.
    """
    import numpy as np

    try:
        return np.fromfile(regular_file(path), dtype=np.uint8)
    except MemoryError as error:  # damage: a file may claim any size
        size = f"it has {path.stat().st_size:,} bytes, which do not fit into memory"
        raise OSError(errno.EFBIG, size, str(path)) from error


def write_atomically(path: Path, data: Any, durable: bool = True, private: bool = False) -> None:
    """Write a file through a temporary one, so that readers never see a part of it, also after a crash of the machine.

    Args:
        path: The file.
        data: Its bytes.
        durable: Whether the file is on disk when the call returns; False is faster.
        private: Whether only the owner can read the file.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = path.with_suffix(".part")
    try:
        temporary.unlink(missing_ok=True)
        mode = 0o600 if private else 0o666
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, from memory to disk.

    Args:
        path: The file or folder; nothing happens where the system cannot do that.
    """
    with suppress(OSError):  # Windows cannot open folders, and some file systems cannot sync them
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_public(folder: Path) -> None:
    """Let everybody read the files of a folder: libraries write some of them for their owner only.

    Args:
        folder: The folder; its own permissions and those of its subfolders stay.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o644)


def is_encodable(text: str) -> bool:
    r"""Return whether a text can be encoded as UTF-8, as tokenizers require.

    Args:
        text: Any Python string. Strings with a lone surrogate, such as ``"\\ud800"``, cannot be encoded.

    Returns:
        ``True`` if ``text.encode()`` succeeds.
    """
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_object(content: str, where: str) -> dict[str, Any]:
    """Parse one line of a JSON Lines file.

    Args:
        content: The line.
        where: File and line number, such as ``data.jsonl:3``; error messages start with it.

    Returns:
        The JSON object in the line.

    Raises:
        DataError: The line is not valid JSON, or holds something other than an object.
    """
    try:
        row = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise DataError(f"{where}: not JSON ({reason}); expected one object per line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a {type(row).__name__}; expected an object")
    return row
