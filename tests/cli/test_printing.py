"""Text of plugins, data and other people's runs cannot steer a terminal, whichever way it is printed."""

import ast
import io
import json
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import nas_meta.cli
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo
from nas_meta.errors import NasMetaError, one_line, printable
from nas_meta.outputs.monitors.logs import _text
from nas_meta.outputs.report.terminal import SafeConsole

HOSTILE = [
    "\x1b]0;mine\x07",
    "\x9b2J",
    "\x90q\x9c",
    "\u202eevil\u2066",
    "\x7f",
    "\r",
    "\b",
    "\u2028",
    "\ud800",
    "\u200b",
]
KEPT = "déjà\u00a0vu\u202f: 日本語 🙂\tand\n"


def steers(text):
    return [c for c in text if not (c.isprintable() or c in "\n\t\u00a0\u202f")]


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_no_way_to_the_terminal_lets_control_characters_pass(hostile, capsys, tmp_path):
    text = f"before {hostile} after"
    echo(text)
    echo(text, err=True)
    print_json({text: text})
    printed = capsys.readouterr()
    assert not steers(printed.out) and not steers(printed.err) and "before" in printed.err
    document = printed.out.partition("\n")[2]
    assert json.loads(document) == {text: text}
    log = tmp_path / "log"
    log.write_text(text, encoding="utf-8", errors="backslashreplace")
    assert not steers("".join(_text(log, lambda: True)))
    table = Table(title=text)
    table.add_column(text)
    table.add_row(Text(text))
    screen = SafeConsole(file=io.StringIO(), width=160, markup=False)
    screen.print(table, text)
    assert not steers(screen.file.getvalue()) and "before" in screen.file.getvalue()
    assert not steers(str(NasMetaError(text))) and not steers(one_line(text))


def test_other_text_is_printed_as_it_is():
    assert printable(KEPT) == KEPT
    assert printable("\x1b[31m\x85") == r"\x1b[31m\x85"


def test_the_command_line_prints_in_no_other_way():
    for file in Path(nas_meta.cli.__file__).parent.glob("*.py"):
        calls = [n.func for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
        names = {ast.unparse(call) for call in calls}
        allowed = {"stream.write"} if file.name == "printing.py" else set()
        writes = {
            n for n in names if n in ("print", "typer.echo", "click.echo") or n.endswith((".write", ".writelines"))
        }
        assert writes <= allowed, file
