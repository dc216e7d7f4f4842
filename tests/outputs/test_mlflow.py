"""The MLflow logger: what a search wrote, read back with MLflow's own client."""

import os

import pytest

from nas_meta import load_run, resume, search
from nas_meta.errors import ConfigError
from nas_meta.journal.status import read_status
from nas_meta.outputs.monitors import from_config
from nas_meta.outputs.monitors.mlflow import DATABASE, PARENT, TRIAL, flat, key

SECTION = {"mlflow": {"experiment": "few-shots"}}


def test_without_the_package_a_sentence(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(from_config, "_installed", lambda module: False)
    with pytest.raises(ConfigError, match=r"watching.mlflow: MLflow is not installed; .* 'nas-meta\[mlflow\]'"):
        search(small_config | {"watching": SECTION}, tmp_path / "run", inline=True)
    assert not (tmp_path / "run").exists()


def test_names_and_configs_as_mlflow_takes_them():
    assert key("layer0.heads") == "layer0.heads" and key("größe (x)") == "gr__e _x_"
    assert flat({"a": {"b": 1, "c": None, "d": {"e": [2]}}, "f": "g"}) == {"a.b": 1, "a.d.e": [2], "f": "g"}


def runs_of(run):
    """The run of a search and those of its trials by number, as MLflow reads them."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run.directory / DATABASE}")
    experiment = client.get_experiment_by_name("few-shots").experiment_id
    found = client.search_runs([experiment])
    (parent,) = [r for r in found if PARENT not in r.data.tags]
    assert {r.data.tags[PARENT] for r in found if r is not parent} <= {parent.info.run_id}
    return parent, {int(r.data.tags[TRIAL]): r for r in found if r is not parent}


def test_a_search_is_a_run_with_a_run_below_it_for_each_trial(small_config, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra nas-meta[mlflow] is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_HTTP_REQUEST_TIMEOUT")
    before = [os.environ.get(name) for name in names]
    config = small_config | {"budget": {"trials": 2}, "watching": SECTION}
    run = load_run(search(config, tmp_path / "run", inline=True).directory)
    assert list(read_status(run).troubles) == []
    assert [os.environ.get(name) for name in names] == before
    parent, trials = runs_of(run)
    assert (parent.info.run_name, parent.info.status) == ("run", "FINISHED")
    assert parent.data.params["space.name"] == "bert-subnet" and "watching.mlflow.experiment" not in parent.data.params
    assert parent.data.metrics["best/accuracy"] == pytest.approx(run.best.metrics["accuracy"])
    for trial in run.trials:
        written = trials.pop(trial.id)
        assert written.info.status == "FINISHED"
        assert written.data.metrics == pytest.approx(dict(trial.metrics))
        assert written.data.params == {n: str(v) for n, v in trial.architecture.items() if v is not None}
    assert not trials
    # A resumed search continues the same run.
    resume(run.directory, ["budget.trials=3"], inline=True)
    again, trials = runs_of(run)
    assert again.info.run_id == parent.info.run_id and sorted(trials) == [1, 2, 3]


def test_a_server_that_does_not_answer_does_not_end_the_search(small_config, tmp_path):
    pytest.importorskip("mlflow", reason="the extra nas-meta[mlflow] is not installed")
    section = {"mlflow": {"uri": "http://127.0.0.1:9"}}
    config = small_config | {"budget": {"trials": 1}, "watching": section}
    run = search(config, tmp_path / "run", inline=True)
    assert run.best.id == 1
    (trouble,) = read_status(run).troubles
    assert trouble.startswith("MLflow: ") and trouble.endswith("the search continues without it")
