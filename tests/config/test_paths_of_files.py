"""Paths in a config file start from the folder of the file; those of the command line from the current folder."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from command_line import nas_meta
from pydantic import AliasChoices, AliasPath, BaseModel, Field

from nas_meta import load_run, resume, search
from nas_meta.config.resolved import read_config
from nas_meta.core.placing import placed
from nas_meta.errors import ConfigError

PLUGIN = """
from pathlib import Path
from nas_meta import PluginOptions, SubSpace
from search_spaces.pretrained.bert_subnet import BertSubnet
from pydantic import BaseModel

class Part(BaseModel):
    table: Path | None = None

class Options(BertSubnet.Options):
    folders: list[Path] = []
    parts: dict[str, Part] = {}
    inner: SubSpace | None = None

class Mine(BertSubnet):
    Options = Options

def note(event):
    pass
"""


@pytest.fixture
def project(tiny_model, labelled_texts, tmp_path, monkeypatch):
    """A folder with a config and all that it names, in the current folder."""
    folder = tmp_path / "work" / "project"
    shutil.copytree(tiny_model, folder / "model")
    shutil.copy(labelled_texts, folder / "data.jsonl")
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "notify.sh").touch()
    monkeypatch.chdir(folder.parent)
    return folder


def write(folder, document):
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    return os.path.relpath(folder / "config.yaml")


def test_every_kind_of_path_starts_from_the_folder_of_the_file(project):
    document = {
        "space": {
            "name": "mine.py:Mine", "model": "model", "folders": ["model", "new"], "parts": {"a": {"table": "a.csv"}},
            "inner": {"name": "bert-subnet", "model": "model"},
        },
        "tasks": {"source": "jsonl", "path": "data.jsonl"},
        "learner": {"name": {"choice": ["protonet", "ridge"]}, "training": {"distill": {"choice": [0, 0.5]}}},
        "pretraining": {"corpus": ["data.jsonl", "missing.txt"], "inherit": "model"},
        "objectives": {"accuracy": "maximize", "flops": {"max": "0.5x of model"}},
        "watching": {"on_trial_end": "mine.py:note", "on_search_end": ["./notify.sh", "data.jsonl"]},
        "run_dir": "runs/first",
    }  # fmt: skip
    resolved = read_config(write(project, document))
    found = resolved.document
    at = lambda name: str(project / name)  # noqa: E731
    assert found["space"]["name"] == f"{at('mine.py')}:Mine" and found["space"]["model"] == at("model")
    assert found["space"]["folders"] == [at("model"), at("new")]
    assert found["space"]["parts"]["a"]["table"] == at("a.csv")
    assert resolved.options["space"].inner.options.model == at("model")
    assert found["tasks"]["path"] == at("data.jsonl") and found["run_dir"] == at("runs/first")
    assert found["pretraining"]["corpus"] == [at("data.jsonl"), "missing.txt"]
    assert found["pretraining"]["inherit"] == at("model")
    assert found["objectives"][1]["max"] == f"0.5x {at('model')}"
    assert found["watching"]["on_trial_end"] == f"{at('mine.py')}:note"
    assert found["watching"]["on_search_end"] == [at("notify.sh"), "data.jsonl"]
    assert read_config(project / "config.yaml").document == found  # however the file is named
    os.chdir("/")
    assert read_config(project / "config.yaml").document == found  # and wherever


def test_overrides_start_from_the_current_folder(project):
    shutil.copy(project / "data.jsonl", "other.jsonl")
    shutil.copytree(project / "model", "model2")
    file = write(project, {"space": {"model": "model"}, "tasks": {"source": "jsonl", "path": "data.jsonl"}})
    found = read_config(file, ["tasks.path=other.jsonl", "space.model=model2", "run_dir=runs/x"]).document
    assert found["tasks"]["path"] == str(project.parent / "other.jsonl")
    assert found["space"]["model"] == str(project.parent / "model2")
    assert found["run_dir"] == str(project.parent / "runs" / "x")
    found = read_config(file, ["space.name=project/mine.py:Mine", "space.folders=[model2]"]).document
    assert found["space"]["folders"] == [str(project.parent / "model2")]
    assert found["space"]["model"] == str(project / "model")


def test_a_path_that_an_override_replaces_need_not_exist(project):
    shutil.move(project / "data.jsonl", "data.jsonl")  # the config still names it, but beside itself
    shutil.copytree(project / "model", "other")
    document = {"space": {"name": "bert-subnet", "model": "other"}, "tasks": {"source": "jsonl", "path": "data.jsonl"}}
    file = write(project, document)
    with pytest.raises(ConfigError, match="but in the current folder"):
        read_config(file)
    found = read_config(file, ["tasks.path=data.jsonl", "space={model: project/model}"]).document
    assert found["tasks"]["path"] == str(project.parent / "data.jsonl")
    assert found["space"]["model"] == str(project / "model")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("tasks", "path", "there.jsonl"),
        ("space", "model", "there"),
        ("space", "name", "there.py:Mine"),
        ("pretraining", "corpus", "there.txt"),
        ("watching", "on_trial_end", "there.py:note"),
        ("", "run_dir", "runs/old"),
    ],
)
def test_a_path_that_only_the_current_folder_has_is_refused_with_the_fix(project, section, key, value):
    for name in ("there.jsonl", "there", "there.py", "there.txt", "runs/old"):
        os.makedirs(name)
    document = {"tasks": {"source": "jsonl", "path": "data.jsonl"}}
    if section:
        document[section] = {**document.get(section, {}), key: value}
    else:
        document[key] = value
    file = write(project, document)
    path = value.rpartition(":")[0] or value
    with pytest.raises(ConfigError) as raised:
        read_config(file)
    message = str(raised.value)
    assert message.startswith(f"{file}:")
    assert f"'{path}' does not exist in the folder of the config, {project}" in message
    assert f"expected '../{path}'" in message and (section or key) in message
    fixed = document | ({section: document[section] | {key: f"../{value}"}} if section else {key: f"../{value}"})
    if section != "space" and not value.endswith("note"):  # the folders are no models and no plugins
        read_config(write(project, fixed))


class Aliased(BaseModel):
    file: Path = Field(validation_alias=AliasChoices("table", AliasPath("sheet")))
    folder: Path = Field(alias="directory")


def test_an_option_is_placed_under_each_of_its_names():
    for name in ("table", "sheet", "file"):
        assert placed(Aliased, {name: "a.csv", "directory": "b"}, "/configs") == {
            name: "/configs/a.csv",
            "directory": "/configs/b",
        }


def test_only_the_config_of_an_exported_model_starts_from_the_current_folder(project):
    """A config of that name that stands beside no model is like any other."""
    os.rename(write(project, {"tasks": {"source": "jsonl", "path": "data.jsonl"}}), project / "nas_meta.yaml")
    assert read_config(project / "nas_meta.yaml").options["tasks"].path == project / "data.jsonl"
    (project / "config.json").write_text("{}")
    assert read_config(project / "nas_meta.yaml").options["tasks"].path == project.parent / "data.jsonl"


def test_names_stay_names_although_the_current_folder_is_another(project):
    found = read_config(write(project, {"pretraining": {}, "space": {"model": "bert-base/uncased"}})).document
    assert found["space"]["model"] == "bert-base/uncased" and found["pretraining"]["corpus"] == "default"
    assert read_config(write(project, {})).document["space"]["model"] == "starter:minilm"


def test_a_search_by_a_file_elsewhere_resumes_and_its_own_config_is_valid_anywhere(project, small_config, monkeypatch):
    small_config["evaluation"] |= {"episodes": 5, "test_episodes": 5, "compare": False, "check_models": False}
    document = small_config | {
        "space": {"name": "mine.py:Mine", "model": "model"},
        "tasks": {"source": "jsonl", "path": "data.jsonl", "ways": 3, "queries": 3},
        "budget": {"trials": 1},
    }
    file = write(project, document)
    assert nas_meta("search", file, "--run-dir", "run", "--inline").returncode == 0
    assert load_run("run", allow_plugins=True).config.options["tasks"].path == project / "data.jsonl"
    assert not (project / "run").exists()  # --run-dir starts from the current folder
    assert search(file, "run", inline=True, resume=True).count == 1
    monkeypatch.chdir("/")
    run = project.parent / "run"
    assert resume(run, ["budget.trials=2"], inline=True, allow_plugins=True).count == 2
    assert read_config(run / "config.yaml").document["tasks"]["path"] == str(project / "data.jsonl")


def test_init_writes_paths_that_start_from_the_config(project, monkeypatch):
    (project.parent / "configs").mkdir()
    assert nas_meta("init", "project/data.jsonl", "--to", "configs/mine.yaml").returncode == 0
    text = (project.parent / "configs" / "mine.yaml").read_text()
    assert "path: ../project/data.jsonl" in text
    assert nas_meta("data", "configs/mine.yaml").returncode == 0
