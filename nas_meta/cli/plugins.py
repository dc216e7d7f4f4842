"""The commands on plugins: what is installed, and starting and checking a search space."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Optional

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document and nothing else")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (spaces, strategies, learners, stopping, tasks):
        app.command()(command)
    space = typer.Typer(help="Write and check search-space plugins.", no_args_is_help=True)
    space.command("new")(space_new)
    space.command("check")(space_check)
    app.add_typer(space, name="space")


def spaces(name: Annotated[Optional[str], typer.Argument()] = None, as_json: JsonOption = False) -> None:
    """List search spaces, or show one."""
    show_plugins("spaces", name, as_json)


def strategies(name: Annotated[Optional[str], typer.Argument()] = None, as_json: JsonOption = False) -> None:
    """List strategies, or show one."""
    show_plugins("strategies", name, as_json)


def learners(name: Annotated[Optional[str], typer.Argument()] = None, as_json: JsonOption = False) -> None:
    """List learners, or show one."""
    show_plugins("learners", name, as_json)


def stopping(name: Annotated[Optional[str], typer.Argument()] = None, as_json: JsonOption = False) -> None:
    """List stopping rules, or show one."""
    show_plugins("stopping", name, as_json)


def tasks(name: Annotated[Optional[str], typer.Argument()] = None, as_json: JsonOption = False) -> None:
    """List task sources, or show one."""
    show_plugins("tasks", name, as_json)


def space_new(name: Annotated[str, typer.Argument(help="a class name, such as TinyEncoder")]) -> None:
    """Write a working search-space plugin of about 20 lines."""
    from nas_meta.core.scaffold import write_space

    file, class_name = write_space(name)
    typer.echo(f"written to {file}; try: nas-meta space check {file}:{class_name}")


def space_check(name: Annotated[str, typer.Argument(metavar="PATH_OR_NAME")], seed: int = 0) -> None:
    """Check a search space: sample, build, run, pickle."""
    from nas_meta.testing import check_space

    problems, checked = check_space(name, seed)
    for line in checked:
        typer.echo(f"ok    {line}")
    for line in problems:
        typer.echo(f"wrong {line}")
    if problems:
        raise SystemExit(1)


def show_plugins(kind: str, name: str | None, as_json: bool) -> None:
    """Lists the plugins of a kind, or shows one."""
    from nas_meta.cli.plugin_description import describe
    from nas_meta.core import plugins

    if name is None:
        rows = plugins.installed(kind)
        if as_json:
            print_json([vars(row) for row in rows])
            return
        for row in rows:
            typer.echo(f"{row.name:<14} {row.distribution} {row.version:<8} {row.broken or row.summary}")
        return
    description = describe(kind, name)
    if as_json:
        print_json(description)
        return
    typer.echo(f"{name}: {description['summary']}\nfrom {description['origin']}")
    for word in ("takes", "gives"):
        if word in description:
            typer.echo(f"{word} {description[word]}")
    for option in description["options"]:
        typer.echo(f"  {option['name']} = {option['default']}  {option['description']}")
    if "choices" in description:
        typer.echo(f"choices ({description['architectures']:,} architectures):")
        for choice, values in description["choices"].items():
            typer.echo(f"  {choice}: {values}")


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=True, default=str) + "\n")
