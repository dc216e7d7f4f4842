"""Single faults of run directories: each is mended, or ends in a sentence."""

import resource
import shutil
import sqlite3
from pathlib import Path

import pytest
from installed import marked

from nas_meta import load_run, resume, search
from nas_meta.core.files import read_array
from nas_meta.core.signals import Interrupted
from nas_meta.errors import ConfigError, RunError
from nas_meta.journal.database import FILE
from nas_meta.journal.weights import weights_path
from nas_meta.outputs.export.folder import export
from nas_meta.outputs.monitors.logs import read_log
from nas_meta.outputs.rerun import rerun


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def execute(run, *statement):
    with sqlite3.connect(run / FILE) as db:
        db.execute(*statement)
    db.close()


@pytest.fixture
def little_memory():
    """At most 256 MB of address space more than now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.slow
def test_weights_that_are_larger_than_memory_are_damaged(run, little_memory):
    best = load_run(run).best
    with weights_path(run, best.id).open("ab") as file:
        file.truncate(2**42)
    with pytest.raises(RunError, match=f"the weights of trial {best.id} cannot be read: .* is damaged"):
        load_run(run).weights_of(best)


def test_a_file_that_is_larger_than_memory_is_an_error_of_the_file(tmp_path, little_memory):
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(OSError, match=r"it has 4,398,046,511,104 bytes, which do not fit into memory"):
        read_array(tmp_path / "weights")


@pytest.mark.parametrize("metrics", marked(["0.5", "[1, 2]", "null", "nothing"], ["null"]))
def test_metrics_that_are_no_object_have_no_names_to_sort_by(run, metrics):
    execute(run, "UPDATE trials SET metrics = ?", [metrics])
    with pytest.raises(ConfigError, match=r"--sort: no trial has the metric 'accuracy'; there are no valid names"):
        load_run(run).listed(sort="accuracy")


def test_an_architecture_that_is_not_in_the_space_is_neither_exported_nor_rerun(run, tmp_path):
    execute(run, "UPDATE trials SET architecture = '{}'")
    for use in (lambda r: export(r, tmp_path / "model"), lambda r: rerun(r, r.best)):
        with pytest.raises(ConfigError, match="has no value for the choice"):
            use(load_run(run))


def test_a_log_that_no_search_wrote_is_not_printed(run):
    with (run / "logs" / "trial-0001.log").open("ab") as file:
        file.truncate(2**42)
    with pytest.raises(RunError, match=r"trial-0001\.log cannot be read: it has 4,398,046,511,104 bytes"):
        read_log(load_run(run), 1)


@pytest.mark.slow
def test_a_file_whose_name_is_a_digit_but_no_number_is_left_alone(run):
    other = run / "weights" / "²3.safetensors"
    other.write_bytes(b"mine")
    assert len(resume(run, ["budget.trials=7"], inline=True).trials) == 7
    assert other.read_bytes() == b"mine"


@pytest.mark.slow
def test_links_that_lead_to_themselves_do_not_end_a_search(run):
    for name in ("loop", "config.part"):
        (run / name).symlink_to(run / name)
    assert len(resume(run, ["budget.trials=7"], inline=True).trials) == 7


@pytest.mark.slow
def test_latencies_that_are_not_numbers_are_refused(small_config, tmp_path):
    document = small_config | {"objectives": [{"metric": "accuracy"}, {"metric": "latency"}], "budget": {"trials": 2}}
    document["latency"] = {"seconds": 0.01, "models": 4}
    run = search(document, tmp_path / "run", inline=True).directory
    execute(run, "UPDATE info SET value = ? WHERE key = 'latencies'", ('["x", 1.0, 1.0, 1.0]',))
    with pytest.raises(RunError, match="'latencies' is not of the type that nas-meta writes"):
        resume(run, ["budget.trials=3"], inline=True)


def test_a_session_with_a_field_that_none_has_is_refused(run):
    execute(run, "UPDATE info SET value = replace(value, '\"before\"', '\"befor\"') WHERE key = 'session'")
    with pytest.raises(RunError, match="'session' is not of the type that nas-meta writes; the file is damaged"):
        resume(run, ["budget.trials=7"], inline=True)


def test_a_journal_that_cannot_be_resumed_is_refused_also_if_a_trial_is_running(run):
    execute(run, "UPDATE trials SET status = 'running', metrics = '{}' WHERE id = 2")
    execute(run, "UPDATE reports SET trial = 99 WHERE number = 1")
    with pytest.raises(RunError, match="trials are missing from the journal"):
        resume(run, ["budget.trials=7"], inline=True)


@pytest.mark.slow
def test_a_search_that_is_interrupted_before_all_its_trials_run_again_is_resumed(small_config, tmp_path):
    """Two trials were running when a search with two workers died, and one worker reruns them one after the other."""
    small_config |= {"strategy": {"name": "random"}, "budget": {"trials": 4}}
    run = search(small_config, tmp_path / "run", inline=True).directory
    execute(run, "UPDATE trials SET status = 'running', metrics = '{}', finished = NULL WHERE id > 2")
    execute(run, "DELETE FROM said WHERE kind = 'told' AND trial > 2")

    def interrupt(status):
        if status.steps.get(3, 0) > 0:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        resume(run, inline=True, watch=interrupt)
    assert [t.status for t in load_run(run).trials] == ["completed"] * 2 + ["stopped"] * 2
    assert [t.status for t in resume(run, inline=True).trials] == ["completed"] * 4
