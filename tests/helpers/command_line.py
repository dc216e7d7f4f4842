"""The command line, run in a process of its own."""

import subprocess
import sys

PROGRAM = [sys.executable, "-c", "from nas_meta.cli.main import main; main()"]


def nas_meta(*arguments, check=0, cwd=None):
    """Run ``nas-meta`` and assert its exit code, and that it shows no traceback."""
    done = subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=280)
    assert done.returncode == check, f"exit {done.returncode}: {done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done
