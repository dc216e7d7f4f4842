"""Data in memory: a search keeps them in its run directory, and everything later works without the Python objects."""

import json
import shutil

import pytest
from command_line import nas_meta

from nas_meta import load_run, resume, search
from nas_meta.config.given_data import FILE
from nas_meta.errors import ConfigError, DataError
from nas_meta.outputs.rerun import rerun


@pytest.fixture
def config(small_config):
    """Config of a search of a second that names no data."""
    small_config["evaluation"] |= {"check_models": False, "interim_every": 0, "episodes": 8, "test_episodes": 8}
    small_config["learner"]["steps"] = 1
    return small_config | {"budget": {"trials": 1}, "tasks": {"ways": 3, "queries": 3}}


@pytest.fixture
def data(labelled_texts):
    rows = [json.loads(line) for line in labelled_texts.read_text().splitlines()]
    return {"texts": [row["text"] for row in rows], "labels": [row["label"] for row in rows]}


def accuracies(run):
    return [trial.metrics["accuracy"] for trial in run.trials]


@pytest.mark.slow
def test_data_in_memory_give_the_numbers_of_the_same_file(config, data, labelled_texts, tmp_path):
    run = search(config, tmp_path / "memory", inline=True, data=data)
    from_file = config | {"tasks": config["tasks"] | {"source": "jsonl", "path": str(labelled_texts)}}
    assert accuracies(run) == accuracies(search(from_file, tmp_path / "file", inline=True))
    assert run.config.options["tasks"].path == tmp_path / "memory" / FILE
    assert run.fingerprint.data == load_run(tmp_path / "file").fingerprint.data


@pytest.mark.slow
def test_a_run_with_its_own_data_is_used_anywhere_without_them(config, data, tmp_path):
    search(config, tmp_path / "first", inline=True, data=data)
    shutil.move(tmp_path / "first", tmp_path / "moved")
    moved = tmp_path / "moved"
    assert nas_meta("search", moved / "config.yaml", "--run-dir", tmp_path / "again", "--inline").returncode == 0
    run = resume(moved, ["budget.trials=2"], inline=True)
    assert rerun(run, run.trials[1])["accuracy"] == run.trials[1].metrics["accuracy"]
    assert search(config | {"budget": {"trials": 3}}, moved, inline=True, resume=True).count == 3
    assert (run.export(tmp_path / "exported") / "model.safetensors").is_file()
    assert nas_meta("report", moved).returncode == 0 and str(moved / FILE) in (moved / "report.html").read_text()


def test_a_search_resumes_with_the_same_data_and_refuses_others(config, data, tmp_path):
    run = search(config | {"run_dir": str(tmp_path / "run")}, inline=True, data=data)
    longer = config | {"budget": {"trials": 2}}
    assert search(longer, run.directory, inline=True, resume=True, data=data).count == 2
    # Data are the same if they are the same once cleaned.
    padded = {"text": [f"{text} " for text in data["texts"]], "label": data["labels"]}
    assert search(longer, run.directory, inline=True, resume=True, data=padded).count == 2
    others = {name: [*values, values[0]] for name, values in data.items()}
    others["texts"][-1] = "something new"
    with pytest.raises(ConfigError, match=r"cannot be resumed with other data .*class 'class0' had 12 "):
        search(longer, run.directory, inline=True, resume=True, data=others)
    (run.directory / FILE).write_text((run.directory / FILE).read_text().replace("class0", "classic"))
    with pytest.raises(ConfigError, match="class 'classic' is new"):
        resume(run.directory, ["budget.trials=3"], inline=True)
    (run.directory / FILE).unlink()  # the objects restore it
    assert search(longer | {"budget": {"trials": 3}}, run.directory, inline=True, resume=True, data=data).count == 3


def test_data_replace_the_source_of_a_config_file(config, data, tmp_path, monkeypatch):
    import yaml

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "missing.csv").touch()  # a search without data would refuse such a path

    config["tasks"] |= {"source": "csv", "path": "missing.csv", "delimiter": ";"}
    config["tasks"] |= {"text": "utterance", "label": "intent"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    named = {"utterance": data["texts"], "intent": data["labels"], "text": [0] * 144}
    run = search(tmp_path / "config.yaml", tmp_path / "run", inline=True, data=named)
    assert run.count == 1 and run.config.sections.tasks.source == "jsonl"


def test_refused_data_leave_no_directory(config, data, tmp_path):
    with pytest.raises(DataError, match="a single class"):
        search(config, tmp_path / "one", inline=True, data=[(text, "one") for text in data["texts"]])
    few = [pair for pair in zip(data["texts"], data["labels"], strict=True) if pair[1] in ("class0", "class1")]
    with pytest.raises(DataError, match="has 1 class"):
        search(config, tmp_path / "two", inline=True, data=few)
    with pytest.raises(ConfigError, match=r"'tasks\.way' is not a known key"):
        search(config | {"tasks": {"way": 3}}, tmp_path / "typo", inline=True, data=data)
    assert not list(tmp_path.glob("[ot]*"))


@pytest.mark.slow
def test_ray_workers_get_the_data(config, data, tmp_path):
    run = search(config | {"budget": {"trials": 2}}, tmp_path / "run", data=data)
    assert [trial.status for trial in run.trials] == ["completed"] * 2
