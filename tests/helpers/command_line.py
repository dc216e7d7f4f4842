"""The command line: ``nas_meta`` runs it in this process, ``nas_meta_process`` in one of its own, seconds dearer."""

import contextlib
import io
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from unittest.mock import patch

from nas_meta.cli.main import main

PROGRAM = [sys.executable, "-c", "from nas_meta.cli.main import main; main()"]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def nas_meta(*arguments, check=0, cwd=None):
    """Run ``nas-meta`` in this process and assert its exit code, and that it shows no traceback."""
    with contextlib.ExitStack() as ends:
        out = ends.enter_context(contextlib.redirect_stdout(io.StringIO()))
        err = ends.enter_context(contextlib.redirect_stderr(io.StringIO()))
        ends.enter_context(patch.object(sys, "argv", ["nas-meta", *map(str, arguments)]))
        ends.enter_context(patch.dict(os.environ))
        ends.enter_context(warnings_on(err))
        if cwd is not None:
            ends.enter_context(working_folder(cwd))
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return checked(Done(code, out.getvalue(), err.getvalue()), check)


def nas_meta_process(*arguments, check=0, cwd=None):
    """Run ``nas-meta`` in a process of its own and assert its exit code, and that it shows no traceback."""
    done = subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=280)
    return checked(Done(done.returncode, done.stdout, done.stderr), check)


def checked(done, code):
    assert done.returncode == code, f"exit {done.returncode}: {done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@contextlib.contextmanager
def warnings_on(stream):
    """Write logged warnings to a stream, as Python does where nobody has configured logging."""
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    logging.getLogger("nas_meta").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("nas_meta").removeHandler(handler)


@contextlib.contextmanager
def working_folder(folder):
    """Change the working folder for a block (contextlib.chdir is newer than Python 3.10)."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
