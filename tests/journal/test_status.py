"""How far a search is, as another process sees it."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import replace

import pytest
from command_line import PROGRAM, nas_meta
from installed import marked

from nas_meta import load_run, search
from nas_meta.controller import phases, status_reporter
from nas_meta.journal import status as status_module
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.status import FILE, Status, StatusFile, read_status


@pytest.mark.slow
def test_running_trials_are_told_with_step_and_loss(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(status_module, "EVERY", 0)
    seen = []

    def watch(status):
        if status.phase == "searching":
            seen.append((status, status.trials, read_status(load_run(tmp_path / "run"))))

    search(small_config, tmp_path / "run", inline=True, watch=watch)
    for inside, trials, outside in seen:
        assert outside.steps == inside.steps and outside.losses == pytest.approx(inside.losses)
        assert [t.id for t in outside.trials] == [t.id for t in trials]
        assert (outside.total, outside.workers, outside.over) == (6, 1, False)
    steps = [(trial, outside.steps[trial]) for *_, outside in seen for trial in outside.losses]
    assert list(dict.fromkeys(steps)) == [(trial, step) for trial in range(1, 7) for step in range(1, 5)]
    assert all(loss > 0 for *_, outside in seen for loss in outside.losses.values())
    assert read_status(load_run(tmp_path / "run")).phase == "done"


def test_the_command_tells_workers_failures_and_a_search_that_is_silent(small_config, fragile_learner, tmp_path):
    small_config["learner"]["name"] = fragile_learner
    small_config["budget"] = {"trials": 2}
    with pytest.raises(Exception, match="too dark"):
        search(small_config, tmp_path / "run", inline=True)
    printed = json.loads(nas_meta("status", tmp_path / "run", "--json").stdout)
    assert printed["phase"] == "failed" and printed["finished"] == 2 and printed["running"] == []
    assert printed["failures"] == {"ZeroDivisionError: too dark": 2}
    assert "failed       2 × ZeroDivisionError: too dark" in nas_meta("status", tmp_path / "run", "--watch").stdout
    file = tmp_path / "run" / FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"phase": "searching", "written": time.time() - 90}))
    said = nas_meta("status", tmp_path / "run").stdout
    assert (
        re.search(r"no update from the search for 1:[3-5]\d; if it has died: nas-meta resume", said)
        and "workers      1" in said
    )
    told = json.loads(file.read_text())
    for damage in ("", "[]", '{"phase": 3}', json.dumps(told | {"phase": "?"}), json.dumps(told | {"started": "now"})):
        file.write_text(damage)
        assert "it is not a status that a search wrote" in nas_meta("status", tmp_path / "run", check=1).stderr


def test_every_phase_reaches_the_file(small_config, tmp_path, monkeypatch):
    written, write = [], status_module.write_atomically

    def record(path, data, **options):
        write(path, data, **options)
        written.append(json.loads(data)["phase"])

    monkeypatch.setattr(status_module, "write_atomically", record)
    small_config["budget"] = {"trials": 1}
    search(small_config, tmp_path / "run", inline=True)
    phases = list(dict.fromkeys(written))
    assert phases == ["preparing", "searching", "meta-testing", "measuring latencies", "done"]


@pytest.mark.slow
def test_a_silent_phase_shows_signs_of_life(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(status_reporter, "BEAT", 0.02)
    small_config["budget"], seen = {"trials": 1}, []

    def test(*_):
        for _ in range(2):
            seen.append(read_status(load_run(tmp_path / "run")))
            time.sleep(0.3)
        return {}

    monkeypatch.setattr(phases, "meta_test", test)
    search(small_config, tmp_path / "run", inline=True)
    assert [s.phase for s in seen] == ["meta-testing"] * 2 and seen[1].written > seen[0].written
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_a_search_whose_process_was_killed_is_interrupted(small_config, tmp_path):
    small_config["budget"] = {"trials": 1}
    run = search(small_config, tmp_path / "run", inline=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    file = run.directory / FILE
    told = json.loads(file.read_text()) | {"phase": "searching", "written": time.time() - 40}
    for where, phase in [
        (f"{socket.gethostname()}:{gone.pid}", "interrupted"),
        (f"{socket.gethostname()}:{os.getpid()}", "searching"),
        (f"elsewhere:{gone.pid}", "searching"),
        ("nowhere", "searching"),
    ]:
        file.write_text(json.dumps(told | {"where": where}))
        assert read_status(run).phase == phase


def test_a_clock_that_is_set_back_does_not_stop_the_updates(tmp_path):
    file, status = StatusFile(tmp_path), Status("searching", Leaderboard([]), 1, 0.0, {}, tmp_path)
    file.write(replace(status, written=5000.0))
    file._written_at -= 2
    file.write(replace(status, written=1000.0))
    assert json.loads(file.path.read_text())["written"] == 1000.0


@pytest.mark.parametrize("number", marked([signal.SIGTERM, signal.SIGINT], []))
def test_a_search_that_is_ended_says_so(number, small_config_file, tmp_path):
    command = [*PROGRAM, "search", str(small_config_file), "--inline", "--run-dir", str(tmp_path / "run")]
    command += ["--set", "budget.trials=500", "--set", "learner.steps=100000", "--set", "resources.grace_seconds=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    file = tmp_path / "run" / FILE
    while not file.is_file() or not json.loads(file.read_text())["losses"]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "nas-meta resume" in err and "Traceback" not in err and "***" not in err
    assert json.loads(file.read_text())["phase"] == "interrupted"
    assert [t.status for t in load_run(tmp_path / "run").trials] == ["stopped"]
