"""Virtual environments as users have them, with the packages of the current one and this checkout of nas-meta."""

import subprocess
import sysconfig
import venv
from pathlib import Path


def light_venv(home: Path) -> Path:
    """Create a virtual environment that shares the installed packages of the current one.

    Args:
        home: Folder for the environment; it must not exist yet.

    Returns:
        The path of its Python. The environment has no pip of its own.
    """
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    shared = [sysconfig.get_path("purelib"), str(Path(__file__).parents[2])]
    Path(purelib, "parent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in shared))
    return python
