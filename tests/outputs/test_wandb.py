"""The W&B logger, offline: what a search wrote, read back with W&B's own reader."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from command_line import PROGRAM

from nas_meta import load_run, resume, search
from nas_meta.errors import ConfigError
from nas_meta.journal.status import read_status
from nas_meta.outputs.monitors import from_config

SECTION = {"wandb": {"project": "few-shots", "mode": "offline"}}


def test_without_the_package_a_sentence(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(from_config, "_installed", lambda module: False)
    with pytest.raises(ConfigError, match=r"watching.wandb: Weights & Biases is not installed; .* 'nas-meta\[wandb\]'"):
        search(small_config | {"watching": SECTION}, tmp_path / "run", inline=True)
    assert not (tmp_path / "run").exists()


def records(folder, kind):
    """What the files of W&B runs below a folder hold of a kind, as W&B itself reads them."""
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        yield from (r[kind] for r in map(json.loads, printed.splitlines()) if r["type"] == kind)


def history(folder):
    """The rows of its history."""
    return [row["item"] for row in records(folder, "history")]


@pytest.mark.slow  # W&B's reader is a process for each look
def test_a_search_is_a_run_with_a_row_for_each_trial(small_config, tmp_path):
    pytest.importorskip("wandb", reason="the extra nas-meta[wandb] is not installed")
    home = tmp_path / "home"
    home.mkdir()
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(small_config | {"budget": {"trials": 3}, "watching": SECTION}))
    # In a process of its own with an empty home, and proxies that lead nowhere: neither is touched.
    alone = os.environ | {"HOME": str(home), "HTTPS_PROXY": "http://127.0.0.1:9", "TMPDIR": str(home)}
    command = [*PROGRAM, "search", str(config), "--run-dir", str(tmp_path / "run"), "--inline"]
    done = subprocess.run(command, env=alone, capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr
    run = load_run(tmp_path / "run")
    assert list(read_status(run).troubles) == []
    rows = history(run.directory)
    assert [row["trial"] for row in rows] == [1, 2, 3]
    for row, trial in zip(rows, run.trials, strict=True):
        assert {name: row[name] for name in trial.metrics} == pytest.approx(dict(trial.metrics))
        chosen = {n: v for n, v in trial.architecture.items() if v is not None}
        assert {name.partition("/")[2]: v for name, v in row.items() if name.startswith("architecture/")} == chosen
    (begun,) = records(run.directory, "run")
    assert (begun["project"], begun["display_name"]) == ("few-shots", "run")
    summary = {name: v for r in records(run.directory, "summary") for name, v in r.get("update", {}).items()}
    assert summary["best/trial"] == run.best.id
    assert summary["best/accuracy"] == pytest.approx(run.best.metrics["accuracy"])
    assert not list(home.rglob("*wandb*"))
    # One that goes on is the same run to W&B.
    resume(run.directory, ["budget.trials=4"], inline=True)
    assert {r["run_id"] for r in records(run.directory, "run")} == {begun["run_id"]}
    assert sorted(row["trial"] for row in history(run.directory)) == [1, 2, 3, 4]
