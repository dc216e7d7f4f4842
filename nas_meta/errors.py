"""Errors whose message is one sentence for the user.

The command line prints the sentence and exits with ``exit_code``; no other module exits the process.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

LONGEST = 1000  # characters of a message; longer ones are shortened in the middle


class NasMetaError(Exception):
    """Base class of all expected failures.

    Catch it to handle everything that nas-meta raises on purpose. Plugins may raise it or one of its subclasses.

    Args:
        sentence: What is wrong, what was expected and how to fix it, in one sentence. Control characters are escaped,
            and long sentences are shortened in the middle, so that the message is always one short line.

    Attributes:
        exit_code: Exit status of the command line after this error.
    """

    exit_code = 1

    def __init__(self, sentence: str):
        super().__init__(one_line(sentence))


class ConfigError(NasMetaError):
    """The config, an option of a plugin or an argument is invalid."""

    exit_code = 2


class PluginError(NasMetaError):
    """A plugin could not be found, loaded or used."""

    exit_code = 2


class DataError(NasMetaError):
    """The data of a task source or a corpus cannot be read or used."""

    exit_code = 2


class RunError(NasMetaError):
    """A run directory cannot be read or written."""


class TrialError(NasMetaError):
    """A trial failed; the search continues with the other trials."""


class StrategyError(NasMetaError):
    """A strategy failed while it proposed an architecture or received a result."""


def one_line(text: str) -> str:
    r"""Return arbitrary text as one line that is safe to print.

    Args:
        text: Any text; it may contain line breaks, terminal escape sequences or other control characters.

    Returns:
        The text with every unprintable character as an escape such as ``\\n``. Texts of more than 1000 characters are
        cut in the middle, where ``[...]`` marks the gap.
    """
    if len(text) > LONGEST:
        half = LONGEST // 2
        text = f"{text[:half]} [...] {text[-half:]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable(text: str) -> str:
    r"""Return arbitrary text of several lines as text that is safe to print: everything printed passes through here.

    A terminal acts on control characters, also on those of the range C1 (U+0080 to U+009F), and shows text in another
    order after a bidirectional override.

    Args:
        text: Any text.

    Returns:
        The text with every unprintable character, except line breaks, tabs and spaces, as an escape such as ``\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the clause that ends an error message about an unknown name.

    Args:
        name: The unknown name.
        known: All valid names.

    Returns:
        ``did you mean 'NAME'?`` if a valid name is similar, otherwise a list of all valid names.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"expected one of: {', '.join(known)}" if known else "there are no valid names"
