"""The commands that list the installed plugins and describe one."""

from __future__ import annotations

import json
from typing import Annotated, Any, Optional

import typer

from nas_meta.cli.app import App
from nas_meta.cli.options import JsonOption
from nas_meta.cli.printing import echo

NameArgument = Annotated[
    Optional[str],
    typer.Argument(metavar="NAME", help="name of a plugin, or PATH:CLASS, to describe; by default list all"),
]


def add_to(app: App, panel: str) -> None:
    """Add the commands on plugins to the command line.

    Args:
        app: The command line.
        panel: Heading in the help under which they are listed.
    """
    shown = {spaces: "bert-subnet", strategies: "surrogate", learners: "protonet", stopping: "asha", tasks: "csv"}
    for command, name in shown.items():
        app.add(panel, f"nas-meta {command.__name__} {name}", command)


def spaces(name: NameArgument = None, as_json: JsonOption = False) -> None:
    """List the search spaces, or describe one with its options and choices."""
    show_plugins("spaces", name, as_json)


def strategies(name: NameArgument = None, as_json: JsonOption = False) -> None:
    """List the search strategies, or describe one with its options."""
    show_plugins("strategies", name, as_json)


def learners(name: NameArgument = None, as_json: JsonOption = False) -> None:
    """List the few-shot learners, or describe one with its options."""
    show_plugins("learners", name, as_json)


def stopping(name: NameArgument = None, as_json: JsonOption = False) -> None:
    """List the rules that stop trials early, or describe one with its options."""
    show_plugins("stopping", name, as_json)


def tasks(name: NameArgument = None, as_json: JsonOption = False) -> None:
    """List the task sources, or describe one with its options."""
    show_plugins("tasks", name, as_json)


def show_plugins(kind: str, name: str | None, as_json: bool) -> None:
    """Print the plugins of a kind, or the description of one.

    Args:
        kind: Kind of plugin: ``spaces``, ``strategies``, ``learners``, ``stopping`` or ``tasks``.
        name: Name of a plugin, or ``PATH:CLASS``; None lists all.
        as_json: Whether to print JSON.

    Raises:
        PluginError: The plugin does not exist or cannot be loaded.
    """
    from nas_meta.cli.plugin_description import describe
    from nas_meta.core import plugins

    if name is None:
        rows = plugins.installed(kind)
        if as_json:
            print_json([vars(row) for row in rows])
            return
        for row in rows:
            echo(f"{row.name:<14} {row.distribution} {row.version:<8} {row.broken or row.summary}", hanging=15)
        return
    description = describe(kind, name)
    if as_json:
        print_json(description)
        return
    echo(f"{name}: {description['summary']}\nfrom {description['origin']}", hanging=0)
    for word in ("takes", "gives"):
        if word in description:
            echo(f"{word} {description[word]}", hanging=6)
    for option in description["options"]:
        echo(f"  {option['name']} = {option['default']}  {option['description']}", hanging=6)
    if "choices" in description:
        echo(f"choices ({description['architectures']:,} architectures):")
        for choice, values in description["choices"].items():
            echo(f"  {choice}: {values}", hanging=6)


def print_json(document: Any) -> None:
    """Print one JSON document to standard output.

    Args:
        document: Plain data; other values are printed as strings, and infinity and NaN as JavaScript writes them.
    """
    # JSON leaves one control character of ASCII as it is, and has its own escape for it.
    echo(json.dumps(document, indent=1, allow_nan=True, default=str).replace("\x7f", "\\u007f"))
