"""Opening the run of a command: the one that is named, or the latest under ``runs/``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas_meta.cli.printing import echo
from nas_meta.errors import ConfigError

if TYPE_CHECKING:
    from nas_meta.journal.run import Run


def named_or_latest(run: str | Path | None) -> Path:
    """Return the directory of the run that a command is about, and report on standard error if it is chosen.

    Args:
        run: The directory that was given; None takes the latest run under ``runs/``.

    Returns:
        The directory.

    Raises:
        RunError: None was given and there is no run under ``runs/``.
    """
    if run is not None:
        return Path(run)
    from nas_meta.journal.run_list import latest_run

    directory = latest_run()
    echo(f"nas-meta: no run is named, so this is {directory}, the latest", err=True, hanging=0)
    return directory


def opened(run: str | Path | None, allow_plugins: bool = False) -> Run:
    """Open the run that a command is about.

    Args:
        run: The directory that was given; None takes the latest run under ``runs/``.
        allow_plugins: Whether the code of plugin files that the run names may be run.

    Returns:
        The run.

    Raises:
        RunError: The directory is not a run, or there is no run under ``runs/``.
    """
    from nas_meta.journal.run import load_run

    return load_run(named_or_latest(run), allow_plugins)


def run_and_id(run: str | None, number: str | None) -> tuple[str | None, str]:
    """Tell the arguments ``[RUN] ID`` apart: a single argument is the ID.

    Args:
        run: The first argument.
        number: The second argument.

    Returns:
        The run directory, None for the latest, and the ID.

    Raises:
        ConfigError: There are no arguments.
    """
    if number is not None:
        return run, number
    if run is None:
        raise ConfigError("ID is missing; expected the ID of a trial, after the run directory unless it is the latest")
    return None, run


def trial_id(text: str) -> int:
    """Return the ID of a trial as a number.

    Args:
        text: The argument.

    Returns:
        The number.

    Raises:
        ConfigError: The text is not a number.
    """
    if not text.isdecimal():
        raise ConfigError(f"'{text}' is not the ID of a trial; expected a number such as 3, or RUN ID")
    return int(text)
