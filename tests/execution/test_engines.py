"""Both engines keep one promise: calls stream, fail alone, and workers come back."""

import os
import signal
import sys
import time
from dataclasses import dataclass

import cloudpickle
import numpy as np
import psutil
import pytest
import ray
from installed import marked

from nas_meta.errors import ConfigError
from nas_meta.execution.inline_engine import InlineEngine
from nas_meta.execution.ray_engine import RayEngine, Resources, pickled

# Workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Rung:
    height: int
    worker: int
    pauses: bool = True


@dataclass(frozen=True)
class Payload:
    table: np.ndarray
    broken: bool = False

    def setup(self):
        if self.broken:
            raise ValueError("no such device")

    def count(self, to):
        yield from range(to)
        return "counted"

    def fail_after(self, steps):
        yield from range(steps)
        raise ValueError("out of luck\nand more lines")

    def climb(self, to, left):
        try:
            for height in range(to):
                yield "a step"
                yield Rung(height, os.getpid())
            return f"climbed {to}"
        finally:
            left.write_text("left")

    def fall(self):
        yield Rung(0, os.getpid())
        raise ValueError("slipped")

    def cling(self):
        try:
            yield Rung(0, os.getpid())
        finally:
            raise ValueError("cannot let go")

    def die(self):
        yield 0
        os.kill(os.getpid(), signal.SIGKILL)

    def total(self, again):
        return float(self.table.sum()) * again

    def worker(self, seconds):
        time.sleep(seconds)
        return os.getpid()


TABLE = np.arange(10.0)


@pytest.mark.slow
def test_gpus_that_are_not_there_are_refused_in_words():
    with pytest.raises(ConfigError, match=r"need 2048, but this machine has"):
        RayEngine(Payload(TABLE), Resources(workers=2, cpus=1, gpus=1024))
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def ray_engine():
    engine = RayEngine(Payload(TABLE), Resources(workers=2, cpus=1))
    await_workers(engine, 2)
    yield engine
    engine.close()


def await_workers(engine, count):
    deadline = time.time() + 60
    while engine.free() < count and time.time() < deadline:
        time.sleep(0.02)
    assert engine.free() == count


@pytest.fixture
def engine(request, ray_engine):
    return ray_engine if request.param == "ray" else InlineEngine(Payload(TABLE))


def collect(engine):
    values, ends = {}, {}
    for event in engine.events():
        if event is None:
            continue
        if event.done:
            ends[event.key] = event.error or event.value
        else:
            values.setdefault(event.key, []).append(event.value)
    return values, ends


@pytest.mark.parametrize("engine", marked(["inline", "ray"], ["inline"]), indirect=True)
def test_values_arrive_in_order_and_the_worker_is_free_again(engine):
    before = engine.free()
    engine.submit("a", "count", 5)
    assert engine.free() == before - 1
    assert collect(engine) == ({"a": [0, 1, 2, 3, 4]}, {"a": "counted"})
    assert engine.free() == before
    engine.submit("b", "total", 2)
    assert collect(engine) == ({}, {"b": 90.0})


@pytest.mark.parametrize("engine", ["inline", "ray"], indirect=True)
def test_a_call_that_raises_ends_with_one_line(engine):
    engine.submit("a", "fail_after", 2)
    assert collect(engine) == ({"a": [0, 1]}, {"a": "ValueError: out of luck"})
    assert engine.free()


def judge(engine, decide):
    """Answers every pause; returns the rungs and the ends by key."""
    rungs, ends = {}, {}
    for event in engine.events():
        if event is None:
            continue
        if event.paused:
            rungs.setdefault(event.key, []).append(event.value)
            engine.proceed(event.key, decide(event))
        elif event.done:
            ends[event.key] = event.error or event.value
    return rungs, ends


@pytest.mark.parametrize("engine", ["inline", "ray"], indirect=True)
def test_a_paused_call_goes_on_where_it_stood_or_is_closed(engine, tmp_path):
    before = engine.free()
    engine.submit("top", "climb", 3, tmp_path / "top")
    rungs, ends = judge(engine, lambda event: True)
    assert [r.height for r in rungs["top"]] == [0, 1, 2] and len({r.worker for r in rungs["top"]}) == 1
    assert ends == {"top": "climbed 3"}
    engine.submit("half", "climb", 3, tmp_path / "half")
    left = []

    def decide(event):
        left.append((tmp_path / "half").exists())
        return event.value.height < 1

    rungs, ends = judge(engine, decide)
    assert [r.height for r in rungs["half"]] == [0, 1] and ends == {"half": None}
    # It was alive while it was judged, and cleaned up before its end was told.
    assert left == [False, False] and (tmp_path / "half").exists()
    assert engine.free() == before
    engine.submit("next", "count", 2)
    assert collect(engine) == ({"next": [0, 1]}, {"next": "counted"})


@pytest.mark.parametrize("engine", ["inline", "ray"], indirect=True)
def test_a_call_that_fails_after_a_pause_or_while_it_is_closed_says_why(engine):
    engine.submit("a", "fall")
    assert judge(engine, lambda event: True)[1] == {"a": "ValueError: slipped"}
    engine.submit("b", "cling")
    assert judge(engine, lambda event: False)[1] == {"b": "ValueError: cannot let go"}
    assert engine.free()


@pytest.mark.parametrize("go_on", [True, False])
def test_a_worker_that_dies_while_its_call_is_paused_is_replaced(ray_engine, tmp_path, go_on):
    def decide(event):
        if event.key == "dies":
            os.kill(event.value.worker, signal.SIGKILL)
            return go_on
        return True

    ray_engine.submit("dies", "climb", 2, tmp_path / "dies")
    ray_engine.submit("lives", "climb", 2, tmp_path / "lives")
    _, ends = judge(ray_engine, decide)
    assert "worker died" in ends["dies"] and ends["lives"] == "climbed 2"
    await_workers(ray_engine, 2)
    ray_engine.submit(1, "total", 1)
    ray_engine.submit(2, "total", 1)
    assert collect(ray_engine)[1] == {1: 45.0, 2: 45.0}


def test_closing_the_engine_ends_workers_whose_calls_are_paused(tmp_path):
    engine = RayEngine(Payload(TABLE), Resources(workers=1, cpus=0))
    engine.submit("waits", "climb", 1, tmp_path / "waits")
    worker = next(event.value.worker for event in engine.events() if event is not None and event.paused)
    engine.close()
    deadline = time.time() + 20
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != "zombie" and time.time() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == "zombie"


def test_two_calls_run_at_once_on_two_long_lived_workers(ray_engine):
    pids = set()
    for _ in range(2):
        ray_engine.submit(1, "worker", 0.3)
        ray_engine.submit(2, "worker", 0.3)
        _, ends = collect(ray_engine)
        pids |= set(ends.values())
    assert len(pids) == 2 and os.getpid() not in pids


def test_a_worker_that_is_killed_fails_its_call_and_is_replaced(ray_engine):
    ray_engine.submit("dies", "die")
    ray_engine.submit("lives", "count", 3)
    values, ends = collect(ray_engine)
    assert values["lives"] == [0, 1, 2] and ends["lives"] == "counted"
    assert "worker died" in ends["dies"] and "\n" not in ends["dies"]
    await_workers(ray_engine, 2)
    ray_engine.submit(1, "total", 1)
    ray_engine.submit(2, "total", 1)
    assert collect(ray_engine)[1] == {1: 45.0, 2: 45.0}


def test_a_cancelled_call_ends_wherever_it_is_and_the_others_do_not_notice(ray_engine, tmp_path):
    ray_engine.submit("hangs", "worker", 100)
    ray_engine.submit("waits", "climb", 2, tmp_path / "waits")
    ends = {}
    for event in ray_engine.events():
        if event is not None and event.paused:
            ray_engine.cancel(event.key)
            ray_engine.cancel("hangs")
            ray_engine.submit("next", "count", 2)
        elif event is not None and event.done:
            ends[event.key] = event.error or event.value
    assert ends == {"next": "counted"}
    await_workers(ray_engine, 2)


def test_a_cancelled_call_is_closed_inline(tmp_path):
    engine = InlineEngine(Payload(TABLE))
    engine.submit("a", "climb", 2, tmp_path / "a")
    seen = []
    for event in engine.events():
        seen.append(event)
        if event.paused:
            engine.cancel("a")
    assert [e.paused for e in seen] == [False, True]
    assert engine.free() == 1 and (tmp_path / "a").read_text() == "left"


def test_a_worker_that_cannot_start_says_why():
    engine = RayEngine(Payload(TABLE, broken=True), Resources(workers=1, cpus=0))
    engine.submit("a", "count", 1)
    assert collect(engine)[1] == {"a": "the worker cannot start: ValueError: no such device"}
    engine.close()


def test_arrays_stay_out_of_the_pickle_so_that_workers_share_one_copy():
    data, buffers = pickled(Payload(np.zeros(1_000_000)))
    assert len(data) < 20_000 and sum(b.nbytes for b in buffers) == 8_000_000
