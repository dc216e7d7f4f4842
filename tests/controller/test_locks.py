"""Locks of other programs on the journal, and file systems that cannot lock."""

import errno
import fcntl
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from installed import marked

from nas_meta import search
from nas_meta.controller.sessions import LOCK, run_lock
from nas_meta.errors import RunError
from nas_meta.journal import patient_connection
from nas_meta.journal.database import FILE, Journal

# What another process does, which imports nothing but what it needs.
HOLD = """
import sys
from pathlib import Path
from nas_meta.controller.sessions import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
TAKE_RECORD_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(3)
"""


@pytest.fixture
def occupied(tmp_path):
    """A run directory that another process has locked."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    yield tmp_path
    child.communicate()


def test_a_second_search_is_refused_until_the_first_one_is_gone(occupied):
    with pytest.raises(RunError, match="another search is running"), run_lock(occupied):
        pass


@pytest.mark.parametrize("code", marked([errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL], [errno.ENOSYS]))
def test_a_file_system_without_flock_has_record_locks(code, monkeypatch, tmp_path):
    def unsupported(*_):
        raise OSError(code, "not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    for _ in range(2):
        with run_lock(tmp_path):
            other = subprocess.run([sys.executable, "-c", TAKE_RECORD_LOCK, str(tmp_path / LOCK)])
            assert other.returncode == 3


def test_a_file_system_without_any_lock_is_used_with_a_warning(monkeypatch, caplog, tmp_path):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with run_lock(tmp_path):
        pass
    assert "cannot be locked (Function not implemented): make sure that no other search" in caplog.text


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match="cannot be written: Is a directory"):
        (tmp_path / LOCK).mkdir()
        with run_lock(tmp_path):
            pass


def test_a_search_waits_while_another_program_locks_its_journal(small_config, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(patient_connection, "TRY", 0.05)
    monkeypatch.setattr("nas_meta.journal.database.TRY", 0.05)
    small_config |= {"evaluation": {"episodes": 5, "test_episodes": 2, "test_best": 0}, "budget": {"trials": 2}}
    threads, locked = [], threading.Event()

    def browse():
        with sqlite3.connect(tmp_path / FILE, isolation_level=None) as db:
            db.execute("BEGIN IMMEDIATE")
            locked.set()
            deadline = time.monotonic() + 20
            while "another program" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.05)
            db.execute("ROLLBACK")

    def watch(status):
        if not threads and status.steps.get(1):
            threads.append(threading.Thread(target=browse))
            threads[0].start()
            assert locked.wait(20)

    run = search(small_config, tmp_path, inline=True, watch=watch)
    threads[0].join()
    assert [t.status for t in run.trials] == ["completed"] * 2
    assert "another program has locked the journal" in caplog.text


def test_the_patience_has_an_end(monkeypatch, tmp_path):
    monkeypatch.setattr(patient_connection, "PATIENCE", 0.1)
    monkeypatch.setattr("nas_meta.journal.database.TRY", 0.05)
    journal = Journal.create(tmp_path, config={})
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RunError, match="the journal cannot be written: database is locked"):
        journal.set("key", 1)
    other.execute("ROLLBACK")
    journal.set("key", 1)
    assert journal.get("key") == 1
    journal.close()
