"""The one way from the command line to the terminal: whatever is printed is escaped first."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import TextIO

from nas_meta.errors import printable


def echo(text: str, nl: bool = True, err: bool = False, hanging: int | None = None) -> None:
    """Print text that may come from plugins, data or a run of somebody else.

    Args:
        text: The text; see :func:`nas_meta.errors.printable`.
        nl: Whether a line break follows.
        err: Whether to print to standard error.
        hanging: For sentences: in a terminal that is narrower than a line, the line is broken between words, and what
            follows is indented by this number of columns.
    """
    stream = sys.stderr if err else sys.stdout
    text = printable(text)
    if hanging is not None and (columns := terminal_width(stream)):
        text = "\n".join(wrapped(line, columns, hanging) for line in text.split("\n"))
    stream.write(text + ("\n" if nl else ""))
    stream.flush()


def terminal_width(stream: TextIO) -> int:
    """Return the number of columns of the terminal that a stream writes to; 0 if it is not a terminal.

    Args:
        stream: Standard output or standard error.
    """
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # a file, a pipe, or a stream in memory
        return 0


def wrapped(line: str, columns: int, hanging: int = 0) -> str:
    """Break a line between words; a word that is longer than a line, such as a path, stays whole.

    Args:
        line: The line.
        columns: The longest line.
        hanging: Spaces before each line but the first.
    """
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=" " * hanging,
        drop_whitespace=True,
        replace_whitespace=False,
        expand_tabs=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
