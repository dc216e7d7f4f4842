"""Paths in the config of a Python program are those of the folder where the search began, wherever it is used later."""

import shutil
from pathlib import Path

import pytest

from nas_meta import load_run, resume, search
from nas_meta.config.plugin_trust import plugin_files, refuse_plugin_files
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError
from nas_meta.outputs.export.folder import export

PLUGIN = """
from search_spaces.pretrained.bert_subnet import BertSubnet

class Mine(BertSubnet):
    pass

def note(event):
    pass
"""


@pytest.fixture
def here(tiny_model, labelled_texts, tmp_path, monkeypatch):
    """The current folder, with a model, data, a plugin and a corpus."""
    folder = tmp_path / "here"
    shutil.copytree(tiny_model, folder / "model")
    shutil.copy(labelled_texts, folder / "data.jsonl")
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "notify.sh").touch()
    (folder / "default").touch()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def relative(small_config):
    return small_config | {
        "space": {"name": "mine.py:Mine", "model": "model"},
        "tasks": {"source": "jsonl", "path": "data.jsonl", "ways": 3, "queries": 3},
        "evaluation": {"episodes": 5, "test_episodes": 5, "compare": False},
        "budget": {"trials": 1},
    }


def test_a_search_with_relative_paths_is_used_from_another_folder(here, relative, monkeypatch, tmp_path):
    run = search(relative, "run", inline=True)
    assert run.config.sections.space.name == f"{here / 'mine.py'}:Mine"
    assert run.config.options["tasks"].path == here / "data.jsonl"
    # The same config resumes it; its plugin file is the one that the run names.
    assert search(relative | {"budget": {"trials": 2}}, "run", inline=True, resume=True).trials[1].status == "completed"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert (export(load_run(here / "run", allow_plugins=True), "exported") / "model.safetensors").is_file()
    assert len(resume(here / "run", ["budget.trials=3"], inline=True, allow_plugins=True).trials) == 3
    with pytest.raises(ConfigError, match="there is no file mine"):
        search(relative, here / "run", inline=True, resume=True)


def test_every_kind_of_path_becomes_absolute(here, relative):
    relative |= {
        "learner": {"name": {"choice": ["protonet", "ridge"]}},
        "pretraining": {"corpus": ["data.jsonl", "missing.txt"], "inherit": "model"},
        "watching": {"on_trial_end": "mine.py:note", "on_search_end": ["./notify.sh", "data.jsonl"]},
        "run_dir": "runs/first",
    }
    document = resolve(relative).document
    assert document["space"]["model"] == str(here / "model")
    assert document["tasks"]["path"] == str(here / "data.jsonl")
    assert document["pretraining"]["corpus"] == [str(here / "data.jsonl"), "missing.txt"]
    assert document["pretraining"]["inherit"] == str(here / "model")
    assert document["watching"]["on_trial_end"] == f"{here / 'mine.py'}:note"
    assert document["watching"]["on_search_end"] == [str(here / "notify.sh"), "data.jsonl"]
    assert document["run_dir"] == str(here / "runs" / "first")
    assert resolve(document).document == document
    refuse_plugin_files(document, here, plugin_files(relative))


def test_names_stay_names(here):
    document = resolve({"pretraining": {}, "watching": {"on_trial_end": ["notify.sh"]}}).document
    assert document["space"]["model"] == "starter:minilm" and document["pretraining"]["corpus"] == "default"
    assert document["watching"]["on_trial_end"] == ["notify.sh"]
    assert resolve({"space": {"model": "bert-base/uncased"}}).options["space"].model == "bert-base/uncased"


def test_the_home_folder_is_expanded(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.chdir("/")
    document = resolve(
        {"space": {"name": "~/mine.py:Mine", "model": "~/model"}, "tasks": {"source": "jsonl", "path": "~/data.jsonl"}}
    ).document
    assert document["space"]["name"] == f"{here / 'mine.py'}:Mine" and document["space"]["model"] == str(here / "model")
    assert document["tasks"]["path"] == str(here / "data.jsonl") and Path(document["tasks"]["path"]).is_file()
