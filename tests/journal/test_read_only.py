"""A run where nothing may be written: all of it can be looked at, also while its owner's search goes on."""

import ctypes
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from command_line import PROGRAM
from installed import marked
from run_contents import contents

from nas_meta.journal.database import FILE, Journal

DROP = 24  # PR_CAPBSET_DROP
OVERRIDE, READ_SEARCH = 1, 2  # the capabilities by which root ignores permissions


def without_privileges():
    """In a child before it starts its program: permissions hold for root, too."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (OVERRIDE, READ_SEARCH):
        if libc.prctl(DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "the capability cannot be dropped")


def nas_meta(*arguments, check=0):
    """The command line in a process that may not write where permissions forbid it."""
    drop = without_privileges if os.geteuid() == 0 else None
    done = subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, preexec_fn=drop)
    assert done.returncode == check, f"exit {done.returncode}: {done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def read_only(finished, tmp_path):
    """Makes a copy of a finished run, does something to it, and takes the right to write there away."""
    made = []

    def make(prepare=lambda run: None):
        shutil.copytree(finished, tmp_path / "run")
        prepare(tmp_path / "run")
        made.extend([tmp_path / "run", *(tmp_path / "run").rglob("*")])
        for path in made:
            path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            try:
                subprocess.run(["true"], preexec_fn=without_privileges, check=True)
            except subprocess.SubprocessError:
                pytest.skip("root cannot give up the right to write everywhere here: capabilities cannot be dropped")
        return tmp_path / "run"

    yield make
    for path in filter(Path.exists, made):
        path.chmod(0o755 if path.is_dir() else 0o644)


def looked_at(run, trials):
    before = contents(run)
    listed = json.loads(nas_meta("trials", run, "--json").stdout)
    assert len(listed) == trials
    assert json.loads(nas_meta("best", run, "--json").stdout)["status"] == "completed"
    assert "done" in nas_meta("status", run).stdout
    assert contents(run) == before
    return listed


@pytest.mark.slow
def test_a_finished_run_is_looked_at_and_exported_but_not_gone_on_with(read_only, tmp_path):
    run = read_only()
    looked_at(run, 6)
    nas_meta("export", run, "--to", tmp_path / "model")
    assert (tmp_path / "model" / "config.json").is_file()
    refused = nas_meta("resume", run, "--inline", check=1).stderr
    assert refused == f"nas-meta: {run} cannot be written: Permission denied\n"


@pytest.mark.slow
def test_a_new_search_is_refused_in_a_sentence(read_only, small_config, tmp_path):
    run, config = read_only(lambda run: (run / FILE).unlink()), tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(small_config))
    for directory in (run, run / "new"):
        said = nas_meta("search", config, "--run-dir", directory, "--inline", check=1).stderr
        assert said.startswith(f"nas-meta: {directory} cannot be ") and said.endswith("Permission denied\n")


@pytest.mark.parametrize("index", marked([True, False], [False]))
@pytest.mark.slow
def test_what_a_search_that_died_left_is_read(index, read_only):
    """Its last rows are in the log beside the file; the log's index may be gone, as in a copy."""

    def die(run):
        journal = Journal.append(run)
        journal.write(journal.trials()[0].__class__(7, {"a": 1}, 0, 1, "running"))
        logs = {name: (run / name).read_bytes() for name in (f"{FILE}-wal", f"{FILE}-shm")}
        data = (run / FILE).read_bytes()
        journal.close()
        (run / FILE).write_bytes(data)
        for name, content in logs.items():
            if index or not name.endswith("-shm"):
                (run / name).write_bytes(content)

    run = read_only(die)
    assert looked_at(run, 7)[-1]["status"] == "running"


def test_a_search_of_somebody_else_is_watched_while_it_writes(read_only):
    opened = []
    run = read_only(lambda run: opened.append(Journal.append(run)))
    (journal,) = opened
    try:
        for number in (7, 8):
            journal.write(journal.trials()[0].__class__(number, {"a": 1}, 0, 1, "running"))
            assert len(json.loads(nas_meta("trials", run, "--json").stdout)) == number
    finally:
        journal.close()
