"""Standings kept trial by trial are those that a look at all trials finds; event files hold no thread and no handle."""

import threading

import psutil
from hypothesis import given
from hypothesis import strategies as st

from nas_meta.core.objectives import Objective
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.run import pareto, rank
from nas_meta.outputs.monitors.event_file import EVERY, EventWriter

OBJECTIVES = [Objective("flops", "minimize"), Objective("accuracy")]
ends = st.sampled_from(["completed", "failed", "stopped", "running"])
histories = st.lists(st.tuples(st.integers(1, 8), ends, st.integers(0, 3), st.integers(0, 3)), max_size=30)


@given(histories)
def test_standings_are_what_a_look_at_all_trials_finds(history):
    leaderboard, trials = Leaderboard(OBJECTIVES), {}
    for number, status, accuracy, flops in history:
        if number in trials and trials[number].status == "completed":
            continue
        metrics = {"accuracy": accuracy, "flops": flops} if status in ("completed", "stopped") else {}
        trials[number] = Trial(number, {}, 0, 1, status, metrics, "too dark" if status == "failed" else None)
        leaderboard.put(trials[number])
    everything = list(trials.values())
    assert leaderboard.trials == trials
    assert leaderboard.running == {t.id: t for t in everything if t.status == "running"}
    assert leaderboard.finished == sum(t.status != "running" for t in everything)
    assert all(
        leaderboard.counts[s] == sum(t.status == s for t in everything) for s in ("completed", "failed", "stopped")
    )
    assert leaderboard.failures["too dark"] == leaderboard.counts["failed"]
    assert leaderboard.best(3) == rank(everything, OBJECTIVES)[:3]
    assert leaderboard.leader == next(iter(rank(everything, OBJECTIVES)), None)
    assert Leaderboard.of(everything, OBJECTIVES).leader == leaderboard.leader
    assert leaderboard.leader is None or leaderboard.leader in pareto(everything, OBJECTIVES)


def test_of_equally_accurate_trials_the_cheaper_is_first():
    values = {1: (0.9, 5), 2: (1.0, 7), 3: (1.0, 4), 4: (1.0, 4)}
    trials = [Trial(i, {}, 0, 1, "completed", {"accuracy": a, "flops": f}, None) for i, (a, f) in values.items()]
    by_both = [Objective("accuracy"), Objective("flops", "minimize")]
    assert [trial.id for trial in rank(trials, by_both)] == [3, 4, 2, 1]
    assert [trial.id for trial in rank(trials, by_both[:1])] == [2, 3, 4, 1]


def test_hundreds_of_event_files_take_no_thread_and_no_handle(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writers = [EventWriter(tmp_path / str(i)) for i in range(300)]
    threads, files = threading.active_count(), psutil.Process().num_fds()
    for step in range(5):
        for writer in writers:
            writer.add_scalar("loss", 1 / (step + 1), step)
    assert threading.active_count() == threads and psutil.Process().num_fds() == files
    # What waits is written with whatever comes after a while, and at the end.
    monkeypatch.setattr("nas_meta.outputs.monitors.event_file.time.monotonic", lambda: 1e9 + EVERY)
    writers[0].add_scalar("loss", 0.1, 5)
    writers[1].close()
    for writer, steps in zip(writers[:2], (6, 5), strict=True):
        events = EventAccumulator(str(writer.path.parent)).Reload()
        assert [event.step for event in events.Scalars("loss")] == list(range(steps))
