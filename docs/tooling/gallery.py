"""Draw the pictures of the home page from a run: what its commands print, its front, its report and its TensorBoard.

    nas-meta search configs/quickstart.yaml --run-dir runs/quickstart
    python docs/tooling/gallery.py runs/quickstart

Pictures of commands and of the front need nothing else. Those of HTML pages need Chromium, and are left as they are
without it.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from PIL import Image
from rich.console import Console
from rich.text import Text

GALLERY = Path(__file__).parents[1] / "gallery"
LARGEST = 150_000  # bytes of a picture
WIDTH = 100  # columns of the terminal
PROGRAM = [sys.executable, "-c", "from nas_meta.cli.main import main; main()"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLORS = 64  # of screenshots, which keeps them small
PORT = 16006  # of TensorBoard while its picture is taken
COMMANDS = {  # picture -> the command that it shows
    "classify": "nas-meta classify runs/quickstart --support examples.csv --refuse 0.2 --input new.txt",
    "explain-text": "nas-meta explain runs/quickstart --support examples.csv 'my wallet with the card is gone'",
    "explain-run": "nas-meta explain runs/quickstart",
}
# Without the font that rich's own template would load from another host.
TEMPLATE = inspect.signature(Console.export_svg).parameters["code_format"].default
TEMPLATE = re.sub(r"@font-face \{\{.*?\}\}\n", "", TEMPLATE, flags=re.DOTALL).replace(
    "Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
)


def main(run: Path) -> None:
    """Draw all pictures.

    Args:
        run: Run directory of the quickstart.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "runs").mkdir()
        (place / "runs" / "quickstart").symlink_to(run.resolve())
        for name in ("examples.csv", "new.txt"):
            shutil.copy(GALLERY / name, place)
        for name, command in COMMANDS.items():
            write(f"{name}.svg", terminal(command, printed(command, place)).encode())
        printed("nas-meta report runs/quickstart --to report.html", place)
        write("front.svg", front(run))
        take_screenshots(run, place / "report.html")


def take_screenshots(run: Path, report: Path) -> None:
    """Draw the pictures of HTML pages, if there is a browser.

    Args:
        run: The run, which TensorBoard shows.
        report: Its report.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("the pictures of HTML pages stay as they are: there is no Chromium")
        return
    write("report.png", screenshot(browser, report.as_uri(), 900, 1000))
    write("tensorboard.png", tensorboard(browser, run))


def write(name: str, content: bytes) -> None:
    """Write a picture, unless it is too large for a page."""
    if len(content) > LARGEST:
        raise SystemExit(f"{name} has {len(content):,} bytes; expected at most {LARGEST:,}")
    (GALLERY / name).write_bytes(content)
    print(f"{name}: {len(content):,} bytes")


def printed(command: str, place: Path) -> str:
    """Return what a command prints in a folder."""
    environment = {**os.environ, "COLUMNS": str(WIDTH)}
    done = subprocess.run(
        [*PROGRAM, *shlex.split(command)[1:]], capture_output=True, text=True, cwd=place, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{command} failed: {done.stderr}")
    return done.stdout


def terminal(command: str, output: str) -> str:
    """Draw a command and its output as the window of a terminal (SVG)."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text("\n".join(line.rstrip().expandtabs(16) for line in output.splitlines())))
    return console.export_svg(title="", code_format=TEMPLATE, unique_id="terminal", font_aspect_ratio=0.61)


def front(run: Path) -> bytes:
    """Draw the Pareto front of a run (SVG), the same bytes for the same run."""
    import matplotlib

    matplotlib.use("Agg")
    import nas_meta

    picture = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "nas-meta", "svg.fonttype": "none", "font.family": "sans-serif"}):
        axes = nas_meta.load_run(run).plot.pareto()
        axes.figure.savefig(picture, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return picture.getvalue()


def screenshot(browser: str, address: str, width: int, height: int, patience: int = 0) -> bytes:
    """Return a picture of a page (PNG) in few colors.

    Args:
        browser: Program of the browser.
        address: The page.
        width: Width of the window in pixels.
        height: Its height.
        patience: Milliseconds that the page gets for its scripts.
    """
    waiting = [f"--virtual-time-budget={patience}"] if patience else []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}",
             f"--window-size={width},{height}", f"--screenshot={picture}", *waiting, address],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        small = io.BytesIO()
        Image.open(picture).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def tensorboard(browser: str, run: Path) -> bytes:
    """Return a picture of the HParams tab of a run (PNG)."""
    server = subprocess.Popen(
        [*PROGRAM, "tensorboard", str(run), "--port", str(PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        address = f"http://127.0.0.1:{PORT}/"
        for _ in range(60):
            time.sleep(1)
            try:
                urlopen(address, timeout=5).close()
                break
            except OSError:
                continue
        return screenshot(browser, f"{address}#hparams", 1500, 640, 30_000)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
