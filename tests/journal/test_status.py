"""How far a search is, as another process sees it."""

import json
import re
import time

import pytest
from command_line import nas_meta

from nas_meta import load_run, search
from nas_meta.journal import status as status_module
from nas_meta.journal.status import FILE, read_status


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
