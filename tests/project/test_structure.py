"""The rules that keep the parts apart."""

import subprocess
import sys

COMMAND = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def test_the_import_contracts_hold(pytestconfig):
    """In a process of its own, for it would silence the loggers of this one."""
    done = subprocess.run([sys.executable, "-c", COMMAND], cwd=pytestconfig.rootpath, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
