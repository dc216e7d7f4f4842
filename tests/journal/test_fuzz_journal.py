"""Whatever a run directory holds, it is shown, or refused in one sentence; reading it changes nothing in it."""

import json
import os
import shutil
import sqlite3

import pytest
from command_line import nas_meta
from fuzzing import TEXTS, junk, many, sentence, spoiled, tried
from hypothesis import given, reject
from hypothesis import strategies as st
from installed import marked
from run_contents import contents

from nas_meta import load_run, resume
from nas_meta.cli.main import app
from nas_meta.controller.sessions import next_session
from nas_meta.errors import RunError
from nas_meta.journal.database import FILE, Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.status import read_status

COMMANDS = [
    ["trials"],
    ["trials", "--json"],
    ["trials", "--sort", "accuracy"],
    ["best"],
    ["best", "--json"],
    ["status"],
    ["status", "--json"],
]


@pytest.fixture
def copy(finished, tmp_path):
    """Makes the run's directory anew, as it was."""

    def make():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(finished, tmp_path / "run")
        return tmp_path / "run"

    return make


def looked_at(folder, capsys):
    """Everything that looks at a run gives something or one sentence, and leaves every file as it was."""
    before = contents(folder)
    run = sentence(load_run, folder)
    for name in (
        "trials",
        "best",
        "report",
        "objectives",
        "pareto",
        "steps",
        "rung_reports",
        "findings",
        "config",
        "cpus",
    ):
        sentence(lambda name=name: getattr(run, name) if run else None)
    sentence(lambda: read_status(run) if run else None)
    for command, *options in [*COMMANDS, ["trial", "1"]]:
        arguments = [command, str(folder), *options]
        sentence(app, arguments, standalone_mode=False)
        capsys.readouterr()
    assert contents(folder) == before
    return run


@tried(2, 400)
@pytest.mark.slow
def test_bytes_that_are_wrong(cases, copy, capsys):
    change = st.tuples(
        st.sampled_from(["overwrite", "overwrite", "cut", "zeros"]), st.floats(0, 1), st.binary(min_size=1, max_size=40)
    )

    @many(cases)
    @given(st.sampled_from([FILE, FILE, FILE, "status.json"]), st.lists(change, min_size=1, max_size=4))
    def property(name, changes):
        file = copy() / name
        content = file.read_bytes()
        for way, where, new in changes:
            at = int(where * len(content))
            if way == "cut":
                content = content[:at]
            else:
                new = bytes(len(new) * 50) if way == "zeros" else new
                content = content[:at] + new + content[at + len(new) :]
        file.write_bytes(content)
        looked_at(file.parent, capsys)

    property()


@tried(3, 600)
@pytest.mark.slow
def test_values_that_are_wrong(cases, copy, capsys):
    with sqlite3.connect(copy() / FILE) as db:
        tables = {
            t: [c[1] for c in db.execute(f"PRAGMA table_info({t})")] for t in ("info", "trials", "reports", "said")
        }
    column = st.sampled_from([(t, c) for t, names in tables.items() for c in names])
    small = st.integers(-(2**63), 2**63 - 1) | st.floats() | st.none() | st.binary(max_size=9) | st.sampled_from(TEXTS)
    as_json = junk.map(lambda value: json.dumps(value) if digits(value) else "9" * 5000)
    nested = st.sampled_from(["[" * 900, "[" * 90_000, '{"accuracy": 0.5}', '{"accuracy": true}', '{"a": "\\ud800"}'])

    @many(cases)
    @given(column, small | as_json | nested, st.integers(1, 6), st.booleans())
    def property(where, value, row, every):
        (table, name), run = where, copy()
        db = sqlite3.connect(run / FILE, isolation_level=None)
        only = "" if every else f"WHERE rowid = {row}"
        try:
            db.execute(f"UPDATE OR REPLACE {table} SET {name} = ? {only}", (value,))
        except (sqlite3.Error, UnicodeEncodeError):
            reject()  # SQLite itself does not take it there
        db.close()
        looked_at(run, capsys)

    property()


@tried(2, 300)
def test_a_document_that_is_wrong_is_no_config_and_no_report(cases, copy, capsys):
    @many(cases)
    @given(st.sampled_from(["config", "report", "session", "job"]), st.data())
    def property(key, data):
        run = copy()
        document = Journal.open(run).get(key, {"a": 1})
        for _ in range(data.draw(st.integers(1, 3))):
            if document:
                spoiled(document, data)
        if digits(document):
            with sqlite3.connect(run / FILE) as db:
                db.execute("INSERT OR REPLACE INTO info VALUES (?, ?)", (key, json.dumps(document)))
            db.close()
        looked_at(run, capsys)
        if key == "session":
            sentence(next_session, run)

    property()


def digits(value):
    """Whether Python writes the numbers of a value in digits."""
    try:
        json.dumps(value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "statement",
    marked([
        "DROP TABLE trials",
        "DROP TABLE info",
        "DROP TABLE said",
        "DROP TABLE reports",
        "DELETE FROM info",
        "DELETE FROM trials WHERE id = 2",
        "DELETE FROM trials",
        "ALTER TABLE trials DROP COLUMN seed",
        "ALTER TABLE trials RENAME TO t; CREATE VIEW trials AS SELECT * FROM t",
        "DROP TABLE info; CREATE VIEW info AS WITH RECURSIVE n(key, value) AS (SELECT 'config', '{}' UNION ALL SELECT "
        "key, value FROM n) SELECT * FROM n WHERE key = 'x'",
        "ALTER TABLE trials RENAME TO t; CREATE TABLE trials AS SELECT '../../x' AS id, architecture, seed, fidelity, "
        "status, metrics, error, started, finished, planned FROM t",
        "PRAGMA user_version = 99; PRAGMA journal_mode = DELETE",
    ], ["DROP TABLE trials", "DELETE FROM trials WHERE id = 2", "DELETE FROM info"]),
)  # fmt: skip
def test_tables_that_are_wrong(statement, copy, capsys):
    run = copy()
    with sqlite3.connect(run / FILE) as db:
        db.executescript(statement)
    db.close()
    looked_at(run, capsys)
    if statement == "DELETE FROM info":
        with pytest.raises(RunError, match="it has no 'config'; the file is damaged"):
            resume(run, inline=True)
    if "user_version" not in statement:
        assert sentence(resume, run, ["budget.trials=7"], inline=True) is None


def test_one_bad_row_hides_no_other_but_ends_the_search(copy):
    run = copy()
    with sqlite3.connect(run / FILE) as db:
        db.execute('UPDATE trials SET metrics = \'{"accuracy": "high"}\' WHERE id = 5')
    db.close()
    listed = nas_meta("trials", run)
    assert "row 5 cannot be read: its metrics are not numbers" in listed.stderr
    trials = json.loads(nas_meta("trials", run, "--json").stdout)
    assert [t["id"] for t in trials] == list(range(1, 7)) and sum(bool(t["metrics"]) for t in trials) >= 4
    assert "is damaged: row 5" in nas_meta("resume", run, "--inline", check=1).stderr


def test_of_a_cut_journal_the_trials_before_and_behind_are_listed(tmp_path):
    """SQLite needs its first page; then every row whose pages are whole is shown, from both ends."""
    journal = Journal.create(tmp_path, config={})
    journal.write(Trial(1, {f"choice{j}": j for j in range(20)}, 0, 1, "running"))
    journal.close()
    with sqlite3.connect(tmp_path / FILE) as db:
        others = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
        names = "architecture_id, architecture, seed, fidelity, planned, status, metrics, error, started, finished"
        db.execute(f"{others} INSERT INTO trials SELECT i, {names} FROM n, trials")
    db.close()
    content = bytearray((tmp_path / FILE).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8192] = bytes(8192)
    (tmp_path / FILE).write_bytes(content)
    run = load_run(tmp_path)
    found = [t.id for t in run.trials]
    assert found[0] == 1 and found[-1] == 3000 and 2900 < len(found) < 3000
    assert f"{len(found)} of its trials can be read" in run.damage
    (tmp_path / FILE).write_bytes(content[:middle])
    kept = load_run(tmp_path)
    assert 0 < len(kept.trials) < 3000 and kept.damage


@pytest.mark.slow
def test_what_is_no_file_in_the_place_of_one_is_not_waited_for(copy, capsys):
    for name in (FILE, "status.json", f"{FILE}-wal", f"{FILE}-journal"):
        for make in (
            os.mkfifo,
            os.mkdir,
            lambda path: os.symlink("/dev/zero", path),
            lambda path: os.symlink(path, path),
        ):
            run = copy()
            if (run / name).exists():
                (run / name).unlink()
            make(run / name)
            looked_at(run, capsys)
    run = copy()
    os.symlink("/etc/passwd", run / f"{FILE}-wal")
    with pytest.raises(RunError, match="is not a regular file"):
        load_run(run)


def test_the_log_of_a_search_that_died_is_read_and_stays(copy):
    """Also without its index, as a run is that was copied."""
    run, dead = copy(), copy().parent / "dead"
    journal = Journal.append(run)
    journal.write(journal.trials()[0].__class__(7, {"a": 1}, 0, 1, "running"))
    shutil.copytree(run, dead)  # while it is open: what a kill leaves
    journal.close()
    for without in ("", "-shm"):
        if without:
            (dead / f"{FILE}{without}").unlink()
        before = contents(dead)
        assert f"{FILE}-wal" in before and len(load_run(dead).trials) == 7
        assert contents(dead) == before


def test_through_the_command_line(copy):
    run = copy()
    (run / FILE).write_bytes((run / FILE).read_bytes()[:5000])
    for command in ("trials", "best", "status", "resume"):
        assert nas_meta(command, run, check=1).stderr.startswith("nas-meta: ")
    assert nas_meta("export", run, "--to", run / "x", check=1).stderr.startswith("nas-meta: ")
