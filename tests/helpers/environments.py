"""Environments as users have them: a venv that sees this one's packages, and nas-meta as it stands here."""

import subprocess
import sysconfig
import venv
from pathlib import Path


def light_venv(home: Path) -> Path:
    """Makes it in a new folder, without pip; returns its Python."""
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    ours = [sysconfig.get_path("purelib"), str(Path(__file__).parents[2])]
    Path(purelib, "parent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    return python
