"""Latency: measured on models, told from a table during a search, measured again on the front."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from installed import marked
from landscapes import Landscape

from nas_meta.controller.launch import search
from nas_meta.errors import ConfigError
from nas_meta.models.cpu_load import OtherLoad
from nas_meta.models.profiling import LatencySettings, latency
from nas_meta.outputs.report.terminal import console, result_table
from nas_meta.space.latency_predictor import LatencyTable


class Sleeper(torch.nn.Module):
    """Multiplies matrices, so many times, and counts its calls."""

    def __init__(self, times):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(300, 300))
        self.optimises_latency, self.shapes, self.threads = times, set(), set()

    def forward(self, input_ids, attention_mask):
        self.shapes.add(tuple(input_ids.shape))
        self.threads.add(torch.get_num_threads())
        x = self.weight
        for _ in range(self.optimises_latency):
            x = x @ self.weight
        return x


def test_a_model_with_ten_times_the_work_takes_longer_and_the_settings_are_kept():
    settings = LatencySettings(batch=3, tokens=7, threads=1, seconds=0.2)
    little, much = Sleeper(2), Sleeper(40)
    assert latency(much, settings)["latency"] > 3 * latency(little, settings)["latency"]
    assert much.shapes == {(3, 7)} and much.threads == {1}


@pytest.mark.parametrize(
    ("loads", "count", "busy"), [([0.0], 1, 0.0), ([9e3, 0.1], 2, 0.0), ([9e3, 7e3, 8e3, 0.0], 3, 1.0)]
)
def test_a_disturbed_measurement_is_repeated_and_marked(loads, count, busy, monkeypatch):
    remaining = iter(loads)
    monkeypatch.setattr(OtherLoad, "read", lambda self: next(remaining))
    measured = latency(Sleeper(1), LatencySettings(seconds=0.01))
    assert measured["latency_load"] == min(loads[:count]) and measured["latency_busy"] == busy
    assert len(list(remaining)) == len(loads) - count


def test_the_load_of_another_process_is_noticed_and_the_own_is_not():
    code = "import time\nend = time.time() + 20\nprint(flush=True)\nwhile time.time() < end: pass"
    load = OtherLoad()
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    calm, other = load.read(), subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        used, load = psutil.Process(other.pid).cpu_times(), OtherLoad()
        started = time.perf_counter()
        time.sleep(1)
        now = psutil.Process(other.pid).cpu_times()
        expected = (now.user + now.system - used.user - used.system) / (time.perf_counter() - started)
        assert load.read() > expected - 0.15 and calm < psutil.cpu_count()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


@pytest.mark.parametrize("busy", marked([0.0, 1.0, None], [1.0]))
def test_a_table_marks_latencies_that_were_disturbed(busy, small_config, tmp_path, monkeypatch):
    run = search(small_config | {"budget": {"trials": 2}}, tmp_path / "run", inline=True)
    report = dict(run.report)
    extra = {} if busy is None else {"latency_load": 1.42, "latency_busy": busy}  # None: a run of an older version
    report["latency"] = {**report["latency"], "trials": {str(t.id): {"latency": 0.005, **extra} for t in run.pareto}}
    monkeypatch.setattr(type(run), "report", report)
    out = console()
    with out.capture() as shown:
        out.print(result_table(run))
    assert ("5.0 ms !" in shown.get()) is ("other processes used up to 1.4 CPUs" in shown.get()) is bool(busy)
    assert "without other load" not in shown.get()


def seconds(architecture):
    """What a table can tell exactly: a sum over choices."""
    return 0.01 + sum(0.001 * value * (1 + i % 3) for i, value in enumerate(architecture.values.values()))


def test_a_table_tells_latencies_that_are_sums_over_choices():
    space, rng = Landscape(), np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(80)]
    table = LatencyTable(space, drawn[:60], [seconds(a) for a in drawn[:60]], tokens=8)
    told, true = (np.array([f(a) for a in drawn[60:]]) for f in (table.predict, seconds))
    assert np.abs(told / true - 1).max() < 0.02
    assert table.error < 0.02


def test_latency_is_an_objective_and_the_front_is_measured(small_config, tmp_path):
    small_config["objectives"] = {"accuracy": "maximize", "latency": {"direction": "minimize", "max": 1.0}}
    small_config["latency"] = {"models": 6, "seconds": 0.05, "tokens": 8}
    run = search(small_config, tmp_path / "run", inline=True)
    report = run.report["latency"]
    assert set(report["trials"]) == {str(t.id) for t in run.pareto}
    assert all(found["latency"] > 0 for found in report["trials"].values())
    assert report["during_search"].startswith("a table per choice, off by ")
    assert all(t.metrics["latency"] > 0 for t in run.trials)
    out = console()
    with out.capture() as shown:
        out.print(result_table(run))
    assert " ms " in shown.get() and "it was estimated by a table per choice" in shown.get()


def test_without_latency_as_an_objective_flops_stand_in_and_the_report_says_so(small_config, tmp_path):
    small_config["latency"] = {"seconds": 0.05}
    run = search(small_config, tmp_path / "run", inline=True)
    assert run.report["latency"]["during_search"] == "FLOPs"
    assert set(run.report["latency"]["trials"]) == {str(t.id) for t in run.pareto}
    assert "latency" not in run.best.metrics


def test_a_latency_that_nothing_meets_is_refused_before_anything_is_trained(small_config, tmp_path):
    small_config["objectives"] = {"accuracy": "maximize", "latency": {"max": 1e-9}}
    small_config["latency"] = {"models": 4, "seconds": 0.05}
    with pytest.raises(ConfigError, match=r"meets the limits .* its latency is .* expected at most 1e-09"):
        search(small_config, tmp_path / "run", inline=True)
