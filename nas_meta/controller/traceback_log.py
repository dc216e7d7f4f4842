"""The traceback of an error that ends a search, in a file of its run: the error itself is only a sentence."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas_meta.errors import NasMetaError, one_line

FILE = Path("logs") / "search.log"


@contextmanager
def logged_traceback(directory: Path) -> Iterator[None]:
    """Write the traceback of an unexpected exception to the run, and name the file in the error's sentence.

    Unexpected are all exceptions of plugins, such as a strategy, and of nas-meta itself. A NasMetaError that was raised
    on purpose has a sentence that says everything, so its traceback is not written.

    Args:
        directory: The run directory.

    Yields:
        Nothing; run the search inside the ``with`` block.

    Raises:
        Exception: What the block raises; the sentence of a NasMetaError names the file.
    """
    try:
        yield
    except NasMetaError as error:
        cause = error.__cause__
        if cause is None or isinstance(cause, (NasMetaError, OSError, KeyboardInterrupt)):
            raise
        if written := _write(directory, cause):
            error.args = (one_line(f"{error}; its traceback is in {written}"),)
        raise
    except OSError:
        raise
    except Exception as error:
        _write(directory, error)
        raise


def _write(directory: Path, error: BaseException) -> Path | None:
    """Append a traceback to the log of the search; return the file, or None if it cannot be written."""
    path = directory / FILE
    with suppress(OSError):
        # Do not follow links: a run directory from somebody else could redirect writes to any file.
        if path.is_symlink() or path.parent.is_symlink():
            return None
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(time.strftime("%Y-%m-%d %H:%M:%S") + "  the search failed\n")
            file.write("".join(traceback.format_exception(error)) + "\n")
        return path
    return None
