"""What the command line prints when a command fails, and the exit code."""

from __future__ import annotations

import os
import sys

from nas_meta.cli.printing import echo
from nas_meta.core.guard import first_line
from nas_meta.errors import NasMetaError

DEBUG = "--debug"  # shows the traceback of a command that fails


def report(error: Exception) -> int:
    """Print an error as one sentence on standard error.

    Args:
        error: The error that ended a command.

    Returns:
        The exit code.
    """
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, NasMetaError):
        sentence, code = str(error), error.exit_code
    elif isinstance(error, OSError):  # a full disk, a read-only directory
        sentence, code = f"{error.filename or 'a file'}: {error.strerror or error}", 1
    else:
        sentence, code = f"unexpected error, {first_line(error)}; add {DEBUG} to see its traceback", 1
    echo(f"nas-meta: {sentence}", err=True, hanging=0)
    return code
