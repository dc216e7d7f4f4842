"""A search for the deployed form resumes after its process was killed."""

import json
import os
import signal
import sqlite3
import time

import pytest
from killing import CONTEXT, run_search

from nas_meta import load_run
from nas_meta.controller.latency import KEY
from nas_meta.errors import NasMetaError
from nas_meta.journal.database import FILE


def killed_after(trials, document, directory):
    """Kills a search with SIGKILL as soon as this many trials have ended, while the next one runs."""
    child = CONTEXT.Process(target=run_search, args=(document, directory))
    child.start()
    while child.exitcode is None:
        try:
            if sum(t.status == "completed" for t in load_run(directory).trials) >= trials:
                break
        except NasMetaError:
            time.sleep(0.05)  # the journal is not there yet
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL


def measured_latencies(directory):
    """The latencies of the random models that the table was fitted to."""
    with sqlite3.connect(directory / FILE) as database:
        return json.loads(database.execute("SELECT value FROM info WHERE key = ?", (KEY,)).fetchone()[0])


@pytest.mark.slow
def test_a_killed_search_for_the_deployed_form_resumes_with_the_latencies_that_it_had_measured(small_config, tmp_path):
    document = small_config | {
        "objectives": {"accuracy": {"of": "onnx-int8"}, "latency": {"of": "onnx-int8", "max": "1 s"}},
        "latency": {"models": 4, "seconds": 0.02, "tokens": 8},
        "evaluation": {"episodes": 8, "test_episodes": 8, "compare": False, "check_models": False},
        "budget": {"trials": 2},
    }
    killed_after(1, document, tmp_path)
    trials, table = load_run(tmp_path).trials, measured_latencies(tmp_path)
    child = CONTEXT.Process(
        target=run_search, args=(document, tmp_path)
    )  # pytest records every line of torch's tracing
    child.start()
    child.join()
    assert child.exitcode == 0
    run = load_run(tmp_path)
    assert [t.status for t in run.trials] == ["completed"] * 2
    assert run.trials[0] == trials[0]
    assert len(table) == 4 and measured_latencies(tmp_path) == table
    assert run.report["latency"]["form"] == "onnx-int8"
    for trial in run.trials:
        assert 0 < trial.metrics["latency_onnx_int8"] < 1 and 0 <= trial.metrics["accuracy_onnx_int8"] <= 1
