"""What the checks of strategies and learners share: they fail with a problem and a remedy, and run one by one."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import nas_meta
from nas_meta.core import plugins
from nas_meta.core.guard import first_line
from nas_meta.errors import NasMetaError

Subject = TypeVar("Subject")
OWN_FILES = str(Path(nas_meta.__file__).parent)


class CheckError(AssertionError):
    """A plugin does not do what a check expects.

    Args:
        problem: What is wrong, as a clause.
        remedy: How to mend it, as an instruction.
    """

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy = problem, remedy


class NotApplicable(Exception):
    """A check says nothing about this plugin; the message is the reason."""


@dataclass(frozen=True)
class Result:
    """The outcome of one check.

    Attributes:
        check: What holds if the check passes.
        problem: What is wrong; None if nothing is.
        remedy: How to mend it; empty if nothing is wrong.
        skipped: Why the check does not apply to this plugin; None if it does.
    """

    check: str
    problem: str | None = None
    remedy: str = ""
    skipped: str | None = None


def expect(condition: object, problem: str, remedy: str) -> None:
    """Fail a check unless a condition holds.

    Args:
        condition: Holds if it is truthy.
        problem: What is wrong otherwise, as a clause.
        remedy: How to mend it, as an instruction.

    Raises:
        CheckError: The condition does not hold.
    """
    if not condition:
        raise CheckError(problem, remedy)


def run_checks(checks: Mapping[str, Callable[[Subject], None]], subject: Subject) -> list[Result]:
    """Run checks one by one; a failed one does not end the others.

    Args:
        checks: Functions by what holds if they pass; each raises an exception if it does not hold.
        subject: What they check.

    Returns:
        One result per check, in their order.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # libraries warn about the situations that checks provoke
    try:
        return [run_check(description, check, subject) for description, check in checks.items()]
    finally:
        logging.disable(disabled)


def check_plugin(
    kind: str, name: str, checks: Mapping[str, Callable[[Subject], None]], subject_of: Callable[[type], Subject]
) -> list[Result]:
    """Load a plugin and run its checks one by one.

    Args:
        kind: A key of :data:`nas_meta.core.plugins.KINDS`.
        name: An installed name, or ``path/to/file.py:Name``.
        checks: As :func:`run_checks`.
        subject_of: Returns what is checked, from the class of the plugin.

    Returns:
        One result per check. If the plugin cannot be loaded, the only result has the reason.
    """
    try:
        plugin = plugins.load(kind, name)
    except (Exception, SystemExit) as error:
        return [Result(f"the {plugins.KINDS[kind].word} can be loaded", first_line(error), remedy_of(error))]
    return run_checks(checks, subject_of(plugin))


def run_check(description: str, check: Callable[[Subject], None], subject: Subject) -> Result:
    """Run one check.

    Args:
        description: What holds if it passes.
        check: Raises an exception if it does not hold.
        subject: What it checks.

    Returns:
        The result; any exception of the plugin is a problem.
    """
    try:
        check(subject)
    except NotApplicable as reason:
        return Result(description, skipped=str(reason))
    except CheckError as error:
        return Result(description, error.problem, error.remedy)
    except (Exception, SystemExit) as error:
        return Result(description, first_line(error), remedy_of(error))
    return Result(description)


def remedy_of(error: BaseException) -> str:
    """Return where to mend an exception that a plugin raised.

    Args:
        error: The exception.

    Returns:
        An instruction that names the line of the plugin, as far as it is known.
    """
    while isinstance(error, NasMetaError) and error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(OWN_FILES)]
    called = [frame for frame in own if "site-packages" not in frame.filename and not frame.filename.startswith("<")]
    place = next(iter(reversed(called)), None)
    if place is None:
        return "see the message"
    return f"look at line {place.lineno} of {Path(place.filename).name}, in {place.name}()"
