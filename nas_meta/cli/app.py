"""The application that commands are added to: its own options, and help that shows flags without a type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from nas_meta.cli.printing import echo


class Command(TyperCommand):
    """A command whose help shows flags without ``<bool>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        return without_types_of_flags(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands whose help shows flags without ``<bool>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        return without_types_of_flags(super().get_params(ctx))


class App(typer.Typer):
    """A command line, or a group of commands in it.

    Args:
        settings: Arguments of :class:`typer.Typer`.
    """

    def __init__(self, **settings: Any):
        super().__init__(cls=Group, no_args_is_help=True, pretty_exceptions_enable=False, **settings)

    def add(self, panel: str, example: str, function: Callable[..., Any], name: str | None = None) -> None:
        """Add a function as a command.

        Args:
            panel: Heading in the help under which the command is listed.
            example: One use of the command, which its help ends with.
            function: The function.
            name: Name of the command; by default that of the function.
        """
        self.command(name, rich_help_panel=panel, epilog=f"Example: {example}")(function)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Return a decorator that adds a function as a command.

        Args:
            name: Name of the command; by default that of the function.
            settings: Further arguments of :meth:`typer.Typer.command`.
        """
        return super().command(name, cls=Command, **settings)


def without_types_of_flags(params: list[Any]) -> list[Any]:
    """Remove the type of flags from the help: a flag takes no value.

    Args:
        params: Parameters of a command.

    Returns:
        The same parameters.
    """
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return params


def show_version(shown: bool) -> None:
    """Print the version and exit.

    Args:
        shown: Whether ``--version`` is given.

    Raises:
        Exit: ``--version`` is given.
    """
    if shown:
        from nas_meta import __version__

        echo(f"nas-meta {__version__}")
        raise typer.Exit()


def common_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="print the version and exit")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="show the traceback of an error; may also follow the command")
    ] = False,
) -> None:
    """Search for transformer architectures that learn a new task from one to five examples per class."""
