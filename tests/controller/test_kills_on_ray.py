"""Searches on Ray whose driver, or whose workers, are killed in every phase: they end as if nothing had happened."""

import json
import os
import signal
import subprocess
import time

import psutil
import pytest
import yaml
from command_line import PROGRAM
from killing import results

from nas_meta import load_run, resume, search
from nas_meta.journal.weights import weights_path

pytestmark = pytest.mark.slow
PHASES = ["training the supernet", "searching", "meta-testing", "measuring latencies"]


def with_all_phases(document):
    """A search that stays long enough in every phase to be met there."""
    return document | {
        "strategy": {"name": "supernet", "steps": 60, "checkpoint_every": 10, "judged": 12, "texts": 6},
        "learner": {"name": "protonet", "steps": 30, "lr": 1e-3},
        "evaluation": {"episodes": 20, "test_episodes": 1500, "keep": 4, "test_best": 4},
        "budget": {"trials": 4},
        "latency": {"seconds": 2.0},
        "seed": 3,
    }


def adapting(document, corpus):
    """A search that trains its pretrained model further before the first trial."""
    pretraining = {"of": "model", "corpus": str(corpus), "steps": 60, "checkpoint_every": 10, "batch": 4, "block": 32}
    return document | {"pretraining": pretraining, "strategy": {"name": "random"}, "budget": {"trials": 2}}


def begun(document, folder, phase):
    """Start a search in a process group of its own and return its process once it is in a phase."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    process = subprocess.Popen(
        [*PROGRAM, "search", str(config), "--run-dir", str(folder / "run")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    status, seen = folder / "run" / "status.json", None
    earlier = [None, "preparing", "adapting the model", *PHASES]
    while seen != phase:
        assert process.poll() is None, process.communicate()
        assert seen in earlier[: earlier.index(phase)], f"{phase} was over before it was seen"
        time.sleep(0.01)
        if status.is_file():
            seen = json.loads(status.read_text())["phase"]
    time.sleep(0.3)  # into the work of the phase
    return process


def outcome(run):
    """Trials, meta-tests and kept weights: what must not depend on kills."""
    kept = [weights_path(run.directory, t.id) for t in run.trials]
    weights = {path.name: path.read_bytes() for path in kept if path.is_file()}
    tests = {name: row["test_accuracy"] for name, row in run.report["trials"].items()}
    return results(run), tests, run.report["references"], weights


@pytest.fixture(scope="module")
def whole(tiny_model, labelled_texts, tmp_path_factory):
    """Outcomes of undisturbed searches by the text of their config."""
    found = {}

    def of(document):
        key = json.dumps(document, sort_keys=True)
        if key not in found:
            found[key] = outcome(search(document, tmp_path_factory.mktemp("whole") / "run"))
        return found[key]

    return of


@pytest.fixture
def documents(small_config, corpus, tmp_path_factory):
    """The config of a search that has a phase; the corpus is the same file for all."""
    shared = tmp_path_factory.getbasetemp() / "corpus-of-kills.txt"
    shared.write_bytes(corpus.read_bytes())
    return lambda phase: with_all_phases(small_config) if phase in PHASES else adapting(small_config, shared)


@pytest.mark.parametrize("phase", ["adapting the model", *PHASES])
def test_a_driver_that_is_killed_is_resumed_to_the_same_end(phase, documents, whole, tmp_path):
    document = documents(phase)
    process = begun(document, tmp_path, phase)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert outcome(resume(tmp_path / "run")) == whole(document)


@pytest.mark.parametrize("phase", ["adapting the model", *PHASES])
def test_workers_that_are_killed_are_replaced_and_the_search_ends_the_same(phase, documents, whole, tmp_path):
    document = documents(phase)
    process = begun(document, tmp_path, phase)
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in children if "ray::_Worker" in " ".join(child.cmdline())]
    for worker in workers:
        worker.kill()
    _, err = process.communicate(timeout=240)
    assert workers and process.returncode == 0, err
    assert outcome(load_run(tmp_path / "run")) == whole(document)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("phase", ["adapting the model", *PHASES])
def test_a_search_that_is_interrupted_ends_with_130_and_is_resumed(phase, number, documents, whole, tmp_path):
    document = documents(phase)
    document["resources"] = document["resources"] | {"grace_seconds": 0}
    process = begun(document, tmp_path, phase)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "nas-meta resume" in err
    assert "Traceback" not in err and "*** SIG" not in err, err
    document["resources"].pop("grace_seconds")
    expected = whole(document)
    assert outcome(resume(tmp_path / "run")) == expected
