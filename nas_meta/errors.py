"""What can go wrong, each with one sentence for the user.

The command line prints the sentence and exits with ``exit_code``; nothing else in the project exits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 1000  # characters of a sentence


class NasMetaError(Exception):
    """Something failed; the message is one sentence that a user can act on, and one line whatever it quotes."""

    exit_code = 1

    def __init__(self, sentence: str):
        super().__init__(one_line(sentence))


class ConfigError(NasMetaError):
    """The config, an option or an argument is wrong."""

    exit_code = 2


class PluginError(NasMetaError):
    """A plugin could not be found, loaded or used."""

    exit_code = 2


class DataError(NasMetaError):
    """A task source holds something that cannot be used."""

    exit_code = 2


class RunError(NasMetaError):
    """A run directory cannot be read or written."""


class TrialError(NasMetaError):
    """A trial cannot be completed; the search goes on without it."""


class StrategyError(NasMetaError):
    """A strategy broke down while proposing or observing."""


def one_line(text: str) -> str:
    """Text that may hold anything, as one line for a terminal: controls as escapes, of a long one its ends."""
    if len(text) > LONGEST:
        half = LONGEST // 2
        text = f"{text[:half]} [...] {text[-half:]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """The clause that ends an "unknown name" sentence: the nearest valid name, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known are: {', '.join(known)}" if known else "none is known"
