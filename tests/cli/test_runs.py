"""``nas-meta runs``, and commands that find the latest run themselves."""

import csv
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from command_line import nas_meta

from nas_meta.core.objectives import Objective
from nas_meta.journal.database import Journal
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.run_list import latest_run, list_runs
from nas_meta.journal.status import Status, StatusFile
from nas_meta.outputs.report.run_tables import ago

FINISHED = Path(__file__).parents[1] / "compat" / "runs" / "finished"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two runs under ``runs``: ``old``, and a day later ``new``."""
    monkeypatch.chdir(tmp_path)
    for age, name in ((2 * 86400, "old"), (86400, "new")):
        shutil.copytree(FINISHED, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "journal.sqlite", (time.time() - age,) * 2)
    return tmp_path


def began(directory, phase, **more):
    """A run that has no trials yet, with the status that its search wrote."""
    directory.mkdir(parents=True)
    config = {"objectives": [{"metric": "accuracy", "direction": "maximize"}], **more}
    Journal.create(directory, config=config).close()
    board = Leaderboard.of([], [Objective("accuracy")])
    StatusFile(directory).write(Status(phase, board, 20, time.time(), {}, directory, error="no trial worked"))


def test_runs_are_listed_with_the_newest_first(folder):
    began(folder / "runs" / "project" / "inner", "searching")
    began(folder / "runs" / "lost", "failed")
    listed = json.loads(nas_meta("runs", "--json").stdout)
    assert [row["directory"] for row in listed[2:]] == ["runs/new", "runs/old"]
    states = {row["directory"]: row["state"] for row in listed}
    assert states == {
        "runs/project/inner": "running", "runs/lost": "failed", "runs/new": "done", "runs/old": "done",
    }  # fmt: skip
    best = json.loads(nas_meta("best", "runs/new", "--json").stdout)
    assert listed[2]["best"]["id"] == best["id"] and listed[2]["trials"] > 0
    printed = nas_meta("runs").stdout.splitlines()
    assert len(printed) == 5 and "1 d ago" in printed[3] and "no trial worked" in "".join(printed[1:3])


def test_a_search_that_still_prepares_is_listed_but_is_not_the_latest_run(folder):
    for name, phase in (("first", "preparing"), ("second", "failed")):
        began(folder / "runs" / name, phase)
        (folder / "runs" / name / "journal.sqlite").unlink()
    (folder / "runs" / "site").mkdir()
    (folder / "runs" / "site" / "status.json").write_text('{"phase": "up"}')  # of another program
    listed = {row["directory"]: row for row in json.loads(nas_meta("runs", "--json").stdout)}
    assert listed.keys() == {"runs/first", "runs/second", "runs/new", "runs/old"}
    assert listed["runs/first"]["state"] == "preparing" and listed["runs/first"]["total"] == 20
    assert listed["runs/second"]["state"] == "failed" and listed["runs/second"]["error"] == "no trial worked"
    assert "0/20" in nas_meta("runs").stdout and latest_run() == Path("runs/new")


def test_a_run_that_cannot_be_read_does_not_hide_the_others(folder):
    (folder / "runs" / "broken").mkdir()
    (folder / "runs" / "broken" / "journal.sqlite").write_bytes(b"SQLite format 3\0" + bytes(200))
    states = {summary.directory.name: summary.state for summary in list_runs(Path("runs"))}
    assert states == {"broken": "damaged", "new": "done", "old": "done"}


def test_a_folder_without_runs_names_the_command_that_starts_one(tmp_path):
    said = nas_meta("runs", cwd=tmp_path).stdout
    assert said == "there is no run below runs; 'nas-meta search CONFIG' starts one\n"
    wanted = (
        "nas-meta: there is no run below runs; 'nas-meta search CONFIG' starts one, or name the directory of a run\n"
    )
    for typed in (["best"], ["trials"], ["status"], ["logs", "1"], ["trial", "1"], ["export", "--to", "x"], ["resume"]):
        assert nas_meta(*typed, cwd=tmp_path, check=1).stderr == wanted
    assert "is not a folder" in nas_meta("runs", "nowhere", cwd=tmp_path, check=1).stderr


def test_the_latest_run_is_taken_and_reported(folder):
    assert latest_run() == Path("runs/new")
    for typed in (["best", "--json"], ["trials", "--json"]):
        named = nas_meta(typed[0], "runs/new", *typed[1:])
        latest = nas_meta(*typed)
        assert latest.stdout == named.stdout and named.stderr == ""
        assert latest.stderr == "nas-meta: no run is named, so this is runs/new, the latest\n"
    os.utime("runs/old/journal.sqlite")
    assert "runs/old, the latest" in nas_meta("best", "--json").stderr


def test_a_single_argument_is_the_id_of_a_trial(folder):
    assert nas_meta("trial", "1").stdout == nas_meta("trial", "runs/new", "1").stdout
    assert "'runs/new' is not the ID of a trial" in nas_meta("trial", "runs/new", check=2).stderr
    assert "ID is missing" in nas_meta("trial", check=2).stderr
    assert "ID is missing" in nas_meta("logs", check=2).stderr


def test_runs_are_compared_side_by_side(folder):
    config = {"space": {"name": "bert-subnet", "model": "other"}, "seed": 9}
    began(folder / "runs" / "other", "done", **config)
    rows = json.loads(nas_meta("runs", "runs/new", "runs/other", "--json").stdout)
    assert [row["run"] for row in rows] == ["runs/new", "runs/other"]
    assert rows[0]["best"]["test"]["test_accuracy"] > 0 and rows[1]["best"] is None
    assert rows[1]["config"]["seed"] == 9 and rows[1]["config"]["space.model"] == "other"
    assert "space.name" not in rows[0]["config"]  # the same in both
    printed = nas_meta("runs", "runs/new", "runs/other").stdout
    assert "meta-validation" in printed and "runs/other" in printed.splitlines()[0]
    assert nas_meta("runs", "runs/new", "runs/nowhere", check=1).stderr.count("\n") == 1


def test_trials_are_printed_as_csv_json_and_as_a_plain_table(folder):
    rows = json.loads(nas_meta("trials", "runs/new", "--format", "json").stdout)
    assert rows == json.loads(nas_meta("trials", "runs/new", "--json").stdout)
    table = list(csv.DictReader(io.StringIO(nas_meta("trials", "runs/new", "--format", "csv").stdout)))
    assert [int(row["id"]) for row in table] == [row["id"] for row in rows]
    for printed, row in zip(table, rows, strict=True):
        assert printed["status"] == row["status"] and printed["architecture_id"] == row["architecture_id"]
        if row["metrics"]:
            assert float(printed["accuracy"]) == row["metrics"]["accuracy"]
        for name, value in row["architecture"].items():
            assert printed[f"architecture.{name}"] == str(value)
    plain = nas_meta("trials", "runs/new").stdout
    assert not set(plain) & set("│┃━┏") and plain.startswith("trial")
    assert "did you mean 'table'" in nas_meta("trials", "runs/new", "--format", "tabel", check=2).stderr
    assert "--json is given" in nas_meta("trials", "runs/new", "--json", "--format", "csv", check=2).stderr


def test_a_hostile_error_stays_in_its_csv_cell(tmp_path):
    from nas_meta.journal.flat_trials import as_csv

    text = as_csv([Trial(1, {"a": "x,y"}, 0, 0, "failed", error='no\n"luck"\x1b[31m')])
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["error"] == r'no\n"luck"\x1b[31m' and row["architecture.a"] == "x,y" and text.count("\n") == 2


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7300, "2 h ago"), (3e6, "34 d ago")]
)
def test_an_age_is_shown_in_its_largest_unit(seconds, shown):
    assert ago(seconds) == shown
