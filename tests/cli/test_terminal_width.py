"""What the command line prints in narrow terminals: nothing is cut off or broken inside a word."""

import os
import pty
import subprocess

import pytest
import typer
from command_line import PROGRAM

from nas_meta.cli.main import app
from nas_meta.cli.printing import wrapped

GROUP = typer.main.get_command(app)


def commands(group=GROUP, path=()):
    for name, command in group.commands.items():
        yield (*path, name)
        yield from commands(command, (*path, name)) if hasattr(command, "commands") else ()


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_no_option_is_cut_off_in_the_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    app([*command, "--help"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "…" not in shown and "...]..." not in shown and "...}..." not in shown


def test_an_error_is_broken_between_words_in_a_terminal():
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "cols", "60"], stdin=theirs, check=True)
    missing = "no-such-folder/" + "x" * 40 + ".yaml"
    failed = subprocess.run([*PROGRAM, "search", missing], stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    lines = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert failed.returncode == 2 and len(lines) >= 2
    assert " ".join(lines) == f"nas-meta: {missing} cannot be read: No such file or directory"


def test_a_wrapped_line_keeps_its_words_and_its_indent():
    line = "note      a path such as /a-folder/with-hyphens/and-more.csv stays whole"
    lines = wrapped(line, 30, hanging=10).split("\n")
    assert lines[0] == "note      a path such as"
    assert all(following.startswith(" " * 10) for following in lines[1:])
    assert " ".join(part.strip() for part in lines) == line
