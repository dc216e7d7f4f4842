"""The one way from the command line to the terminal: whatever is printed is escaped first."""

from __future__ import annotations

import sys

from nas_meta.errors import printable


def echo(text: str, nl: bool = True, err: bool = False) -> None:
    """Print text that may come from plugins, data or a run of somebody else.

    Args:
        text: The text; see :func:`nas_meta.errors.printable`.
        nl: Whether a line break follows.
        err: Whether to print to standard error.
    """
    stream = sys.stderr if err else sys.stdout
    stream.write(printable(text) + ("\n" if nl else ""))
    stream.flush()
