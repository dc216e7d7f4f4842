"""A journal from somebody else is a file that SQLite reads: it executes nothing, and bounds time and memory."""

import resource
import shutil
import sqlite3
import struct
import time

import pytest
from fuzzing import sentence

from nas_meta import load_run, resume, search
from nas_meta.errors import RunError
from nas_meta.journal import schema, sqlite_reader
from nas_meta.journal.database import FILE, Journal

MAGIC = bytes.fromhex("d9d505f920a163d7")


def rollback_journal(database, super_journal=b"", pages=0):
    """The bytes of a hot rollback journal, which restores no page and names a super-journal."""
    size = len(database) // 4096
    header = MAGIC + struct.pack(">iIIII", pages, 1, size, 512, 4096)
    named = b""
    if super_journal:
        checksum = sum(super_journal)
        named = struct.pack(">I", 2**30 // 4096 + 1) + super_journal
        named += struct.pack(">II", len(super_journal), checksum) + MAGIC
    return header.ljust(512, b"\0") + named


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def mode(run, name):
    with sqlite3.connect(run / FILE) as db:
        db.execute(f"PRAGMA journal_mode = {name}")
    db.close()


@pytest.mark.parametrize("journal_mode", ["WAL", "DELETE"])
@pytest.mark.slow
def test_a_rollback_journal_deletes_no_file(journal_mode, copy, tmp_path):
    mode(copy, journal_mode)
    mine = tmp_path / "mine"
    mine.write_text("dear to me")
    rollback = copy / f"{FILE}-journal"
    attack = rollback_journal((copy / FILE).read_bytes(), str(mine).encode())
    rollback.write_bytes(attack)
    assert len(load_run(copy).trials) == 6
    with pytest.raises(RunError, match="was not written by nas-meta, and SQLite could delete other files"):
        resume(copy, ["budget.trials=7"], inline=True)
    assert mine.read_text() == "dear to me" and rollback.read_bytes() == attack
    # The attack is one: SQLite itself follows it.
    sqlite3.connect(copy / FILE).execute("SELECT * FROM trials").fetchall()
    assert not mine.exists()


@pytest.mark.slow
def test_a_rollback_journal_beside_a_file_without_tables_deletes_no_file(small_config, tmp_path):
    """A search that is killed while it creates its journal leaves such a pair; the next search begins anew."""
    mine, run = tmp_path / "mine", tmp_path / "run"
    for named in (b"", str(mine).encode()):
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        mine.write_text("dear to me")
        db = sqlite3.connect(run / FILE)
        db.execute("PRAGMA journal_mode=WAL")
        db.close()
        content = (run / FILE).read_bytes()
        assert content and not Journal.exists(run)
        (run / f"{FILE}-journal").write_bytes(rollback_journal(content, named))
        search(small_config | {"budget": {"trials": 1}}, run, inline=True, resume=True)
        assert len(load_run(run).trials) == 1 and mine.read_text() == "dear to me"


@pytest.mark.slow
def test_a_rollback_journal_of_a_file_system_without_write_ahead_logging_is_applied(copy):
    mode(copy, "DELETE")
    (copy / f"{FILE}-journal").write_bytes(rollback_journal((copy / FILE).read_bytes()))
    assert len(resume(copy, ["budget.trials=7"], inline=True).trials) == 7


def test_a_database_of_something_else_is_not_overwritten(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("CREATE TABLE mine (value)")
    db.close()
    assert Journal.exists(tmp_path)
    with pytest.raises(RunError, match="already holds a run"):
        Journal.create(tmp_path, config={})
    assert "mine" in dict(sqlite3.connect(tmp_path / FILE).execute("SELECT name, 1 FROM sqlite_master"))


COLUMNS = "id INTEGER PRIMARY KEY, architecture, seed, fidelity, status, error, started, finished, planned"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
HOSTILE = {
    "generated column": f"DROP TABLE trials; CREATE TABLE trials ({COLUMNS}, metrics AS (hex(zeroblob(400000000))))",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON said BEGIN DELETE FROM trials; END",
    "view": f"DROP TABLE said; CREATE VIEW said AS {ENDLESS} SELECT i AS number, 'asked' AS kind, i AS trial FROM n",
    "virtual table": "DROP TABLE said; CREATE VIRTUAL TABLE said USING fts5(number, kind, trial)",
    "index": "CREATE INDEX i ON trials (hex(zeroblob(id)))",
    "column": "ALTER TABLE trials ADD COLUMN more",
}


@pytest.mark.parametrize("statement", HOSTILE.values(), ids=HOSTILE)
def test_a_schema_that_executes_is_refused_before_the_first_query(statement, copy):
    with sqlite3.connect(copy / FILE) as db:
        try:
            db.executescript(statement)
        except sqlite3.OperationalError as error:
            pytest.skip(str(error))  # this SQLite cannot create it
    db.close()
    before = (copy / FILE).read_bytes()
    for use in (load_run, lambda run: resume(run, ["budget.trials=7"], inline=True)):
        with pytest.raises(RunError, match="is not a journal that nas-meta wrote: it has"):
            use(copy)
    assert (copy / FILE).read_bytes() == before


def test_a_check_that_costs_memory_is_not_written_to(copy):
    """Reading does not evaluate it; writing would."""
    with sqlite3.connect(copy / FILE) as db:
        db.executescript(
            "ALTER TABLE said RENAME TO s; CREATE TABLE said (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, trial "
            "INTEGER CHECK (length(hex(zeroblob(400000000))) > 1)); PRAGMA ignore_check_constraints = ON;"
            "INSERT INTO said SELECT * FROM s; DROP TABLE s"
        )
    db.close()
    assert len(load_run(copy).trials) == 6
    with pytest.raises(RunError, match="another definition of the table 'said'"):
        Journal.append(copy)


def test_pages_that_are_named_again_and_again_are_no_endless_rows(tmp_path, monkeypatch):
    """A tree whose inner pages all name one leaf has billions of rows in a file of some kilobytes."""
    journal = Journal.create(tmp_path, config={})
    journal.close()
    with sqlite3.connect(tmp_path / FILE) as db:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)"
        db.execute(f"{numbers} INSERT INTO said SELECT i, 'asked', i FROM n")
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'said'").fetchone()
    db.close()
    content = bytearray((tmp_path / FILE).read_bytes())

    def page(number):
        return (number - 1) * 4096

    def children(number):
        at = page(number)
        cells = struct.unpack(">H", content[at + 3 : at + 5])[0]
        pointers = struct.unpack(f">{cells}H", content[at + 12 : at + 12 + 2 * cells])
        return [at + pointer for pointer in pointers]

    assert content[page(root)] == 5  # an inner page of a table
    inner = struct.unpack(">I", content[children(root)[0] : children(root)[0] + 4])[0]
    assert content[page(inner)] == 5
    leaf = content[children(inner)[0] : children(inner)[0] + 4]
    for number in [inner]:
        for cell in children(number):
            content[cell : cell + 4] = leaf
    second = content[children(root)[0] : children(root)[0] + 4]
    for cell in children(root):
        content[cell : cell + 4] = second
    (tmp_path / FILE).write_bytes(content)
    monkeypatch.setattr(sqlite_reader, "SLACK", 0)
    monkeypatch.setattr(sqlite_reader, "MOST_BYTES", 2**20)
    with pytest.raises(RunError, match="its rows are larger than the file"):
        load_run(tmp_path)._journal.ask_tell_events()


def test_a_query_that_does_not_end_is_interrupted(copy, monkeypatch):
    monkeypatch.setattr(sqlite_reader, "limit_time", lambda db: schema.limit_time(db, 0.2))
    started = time.monotonic()
    tables = ", ".join(f"trials t{number}" for number in range(20))
    with pytest.raises(RunError, match="a query did not end within 60 seconds"):
        sqlite_reader.read_rows(copy / FILE, f"SELECT COUNT(t0.id) FROM {tables}")
    assert time.monotonic() - started < 5


@pytest.mark.skipif(not hasattr(sqlite3.Connection, "setlimit"), reason="limits need Python 3.11")
def test_a_value_that_is_larger_than_any_is_refused(copy):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match="too big"):
        sqlite_reader.read_rows(copy / FILE, "SELECT zeroblob(900000000)")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.slow
def test_a_damaged_rollback_journal_is_no_traceback(copy):
    for content in (b"x", MAGIC, rollback_journal(b"\0" * 8192, b"/x")[:-3]):
        (copy / f"{FILE}-journal").write_bytes(content)
        sentence(load_run, copy)
        sentence(resume, copy, inline=True)
