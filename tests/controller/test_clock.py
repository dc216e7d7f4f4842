"""Budgets count the time in which a search runs: not sleep of the machine, and whatever its date is set to."""

import time

import pytest

from nas_meta import resume, search
from nas_meta.controller import phases
from nas_meta.core import active_clock
from nas_meta.core.active_clock import ActiveClock
from nas_meta.journal.database import Journal


@pytest.fixture
def document(small_config):
    return small_config | {"evaluation": {"episodes": 5, "test_episodes": 2, "test_best": 0}, "budget": {"trials": 3}}


def test_gaps_do_not_count():
    readings = iter([100.0, 110.0, 120.0, 3720.0, 3730.0, 3725.0, 3730.0])
    clock = ActiveClock(lambda: next(readings))
    assert [clock.seconds() for _ in range(6)] == [10.0, 20.0, 20.0, 30.0, 30.0, 35.0]


def test_a_trial_does_not_time_out_while_the_machine_sleeps(document, monkeypatch, tmp_path):
    slept, init = [0.0], ActiveClock.__init__
    monkeypatch.setattr(
        active_clock.ActiveClock, "__init__", lambda self: init(self, lambda: time.monotonic() + slept[0])
    )
    document["budget"] |= {"timeout_minutes": 30, "hours": 2}

    def watch(status):
        if status.phase == "searching":
            slept[0] += 3600.0

    run = search(document, tmp_path, inline=True, watch=watch)
    assert slept[0] > 10 * 3600 and [t.status for t in run.trials] == ["completed"] * 3
    assert all(0 <= t.finished - t.started < 60 for t in run.trials)
    assert Journal.open(tmp_path).get("seconds") < 60


@pytest.mark.parametrize("shift", [-1e6, 1e6])
@pytest.mark.slow
def test_a_date_that_is_set_changes_neither_durations_nor_budgets(shift, document, monkeypatch, tmp_path):
    document["budget"] |= {"timeout_minutes": 30, "hours": 2}
    now, shifted = time.time, []

    def watch(status):
        if status.steps.get(2, 0) == 2 and not shifted:
            shifted.append(shift)
            monkeypatch.setattr(time, "time", lambda: now() + shift)

    run = search(document, tmp_path, inline=True, watch=watch)
    assert shifted and [t.status for t in run.trials] == ["completed"] * 3
    assert all(0 <= t.finished - t.started < 60 for t in run.trials)
    run = resume(tmp_path, ["budget.trials=4"], inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 4


@pytest.mark.slow
def test_the_time_of_earlier_sessions_is_kept_while_a_search_runs(document, monkeypatch, tmp_path):
    monkeypatch.setattr("nas_meta.controller.trial_loop.KEEP_SECONDS_EVERY", 0)
    seen = []

    def watch(status):
        if status.phase == "searching":
            seen.append(Journal.open(tmp_path).get("seconds"))

    search(document, tmp_path, inline=True, watch=watch)
    kept = [s for s in seen if s is not None]
    assert kept == sorted(kept) and len(set(kept)) > 3
    monkeypatch.setattr(phases, "meta_test", lambda *_: {})
    resume(tmp_path, inline=True)
    assert Journal.open(tmp_path).get("seconds") > kept[-1]
