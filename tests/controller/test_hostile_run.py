"""A run directory from somebody else executes nothing when it is opened, listed or resumed."""

import json
import os
import pickle
import shutil
import sqlite3
import sys

import numpy as np
import pytest
import torch
from command_line import nas_meta
from pydantic import Field

from nas_meta import load_run, resume, search
from nas_meta.config.watching_section import WatchingSection
from nas_meta.core.options import CodeName, PluginOptions, code_names
from nas_meta.errors import ConfigError, PluginError
from nas_meta.journal.database import Journal
from nas_meta.journal.run import CHECKPOINT
from nas_meta.models.state import restore_training
from nas_meta.space.composite import SubSpace


@pytest.fixture
def hostile(small_config, tmp_path):
    """A finished run whose config names a plugin file that leaves a mark when it is executed, and that file's mark."""
    search(small_config | {"budget": {"trials": 2}}, tmp_path / "run", inline=True)
    mark, plugin = tmp_path / "mark", tmp_path / "run" / "space.py"
    plugin.write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "from search_spaces.pretrained.bert_subnet import BertSubnet as Space\n"
    )
    with sqlite3.connect(tmp_path / "run" / "journal.sqlite") as db:
        (text,) = db.execute("SELECT value FROM info WHERE key = 'config'").fetchone()
        document = json.loads(text)
        document["space"]["name"] = f"{plugin}:Space"
        document["budget"]["trials"] = 3
        db.execute("UPDATE info SET value = ? WHERE key = 'config'", (json.dumps(document),))
    return tmp_path / "run", mark


def test_looking_executes_nothing(hostile):
    run, mark = hostile
    assert len(json.loads(nas_meta("trials", run, "--json").stdout)) == 2
    assert json.loads(nas_meta("best", run, "--json").stdout)["status"] == "completed"
    assert "meta-test" in nas_meta("best", run).stdout
    nas_meta("trial", run, 1)
    assert not mark.exists()


def test_what_would_execute_a_plugin_file_asks_first(hostile, tmp_path):
    run, mark = hostile
    for command in (
        ("resume", run, "--inline"),
        ("trial", run, 1, "--rerun"),
        ("export", run, "--to", tmp_path / "model"),
        ("adapt", run, "--support", run / "config.yaml", "--to", tmp_path / "model"),
    ):
        refused = nas_meta(*command, check=2).stderr
        assert "space.py:Space, whose code would be run; expected --allow-plugins" in refused
    with pytest.raises(PluginError, match="whose code would be run"):
        resume(run, inline=True)
    # A config of one's own that names another space does not name this one.
    with pytest.raises(PluginError, match="whose code would be run"):
        search({"space": {"name": "bert-subnet"}}, run, inline=True, resume=True)
    assert not mark.exists()
    nas_meta("resume", run, "--inline", "--allow-plugins")
    assert mark.exists() and len(load_run(run).trials) == 3


def test_a_cluster_that_only_the_run_names_is_not_joined(small_config, tmp_path):
    search(small_config | {"budget": {"trials": 1}}, tmp_path / "run", inline=True)
    with sqlite3.connect(tmp_path / "run" / "journal.sqlite") as db:
        (text,) = db.execute("SELECT value FROM info WHERE key = 'config'").fetchone()
        document = json.loads(text)
        document["resources"]["address"] = "203.0.113.7:6379"
        db.execute("UPDATE info SET value = ? WHERE key = 'config'", (json.dumps(document),))
    with pytest.raises(ConfigError, match=r"names the Ray cluster 203\.0\.113\.7:6379, which would be trusted"):
        resume(tmp_path / "run")
    # Named by the user it is no question any more; inline, nothing is joined.
    resume(tmp_path / "run", ["resources.address=203.0.113.7:6379"], inline=True)


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def test_a_pickle_in_the_place_of_weights_or_a_checkpoint_is_not_unpickled(small_config, tmp_path):
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Bomb(mark))
    with pytest.raises(pickle.UnpicklingError):
        restore_training(np.frombuffer(bomb, dtype=np.uint8), torch.nn.Linear(1, 1))
    small_config["strategy"] = {"name": "supernet", "steps": 2, "judged": 4, "texts": 4}
    small_config["budget"] = {"trials": 1}

    def interrupt(status):
        if status.phase == "training the supernet":
            raise KeyError

    with pytest.raises(KeyError):
        search(small_config, tmp_path / "run", inline=True, watch=interrupt)
    (tmp_path / "run" / CHECKPOINT).write_bytes(bomb)
    run = resume(tmp_path / "run", inline=True)  # the training starts anew
    assert not mark.exists()
    next((tmp_path / "run" / "weights").glob("*")).write_bytes(bomb)
    refused = nas_meta("export", run.directory, "--to", tmp_path / "model", check=1).stderr
    assert refused.startswith("nas-meta: ")
    assert not mark.exists()


def test_tags_in_a_yaml_file_are_not_executed(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"seed: !!python/object/apply:builtins.open [{tmp_path / 'mark'}, w]\n")
    assert "not plain YAML" in nas_meta("search", config, check=2).stderr
    assert not (tmp_path / "mark").exists()


def test_a_hook_that_only_the_run_names_is_not_run(small_config, tmp_path):
    mark, run = tmp_path / "mark", tmp_path / "run"
    (tmp_path / "hooks.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\ndef hook(event):\n    print(event)\n"
    )
    search(small_config | {"budget": {"trials": 2}}, run, inline=True)
    hooks = {"on_trial_end": ["touch", str(mark)], "on_search_end": f"{tmp_path / 'hooks.py'}:hook"}
    for key, hook in hooks.items():
        with sqlite3.connect(run / "journal.sqlite") as db:
            (text,) = db.execute("SELECT value FROM info WHERE key = 'config'").fetchone()
            document = json.loads(text) | {"watching": {key: hook}}
            document["budget"]["trials"] = 3
            db.execute("UPDATE info SET value = ? WHERE key = 'config'", (json.dumps(document),))
        with pytest.raises(PluginError, match=rf"names the hook .* as watching\.{key}, which would be run"):
            resume(run, inline=True)
        # A config of one's own is that of the search from then on, without them.
        search(small_config | {"budget": {"trials": 2}}, run, inline=True, resume=True)
        with sqlite3.connect(run / "journal.sqlite") as db:
            db.execute("UPDATE info SET value = ? WHERE key = 'config'", (json.dumps(document),))
        assert load_run(run).config.sections.watching.model_dump()[key] == hook
        nas_meta("trial", run, 1, "--rerun")
        nas_meta("export", run, "--to", tmp_path / f"model of {key}")
        assert "done" in nas_meta("status", run).stdout
        assert not mark.exists()
    resume(run, inline=True, allow_plugins=True)
    assert mark.exists() and len(load_run(run).trials) == 3


NNI = {"name": "nni-space", "model_space": "this_is_mine:Space"}


@pytest.mark.parametrize(
    "space",
    [
        NNI,
        {"name": "tower", "image": NNI},
        {"name": "tower", "text": NNI | {"arguments": {}}},
        NNI | {"model_space": "files.py:Space"},
    ],
    ids=["space", "part", "part with options", "file"],
)
def test_a_module_that_only_the_run_names_is_not_imported(space, small_config, tmp_path, monkeypatch):
    mark, run = tmp_path / "mark", tmp_path / "run"
    for name in ("this_is_mine.py", "files.py"):
        (tmp_path / name).write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "this_is_mine", raising=False)
    run.mkdir()
    Journal.create(run, config=small_config | {"space": space}).close()
    for use in (lambda: resume(run, inline=True), lambda: load_run(run).config):
        with pytest.raises(PluginError, match=r"names the (class|plugin file) .*:Space, whose code would be run"):
            use()
    with pytest.raises(PluginError, match="whose code would be run"):
        search(small_config, run, inline=True, resume=True)
    assert not mark.exists()
    with pytest.raises(ConfigError):
        resume(run, inline=True, allow_plugins=True)
    assert mark.exists()


class Inner(PluginOptions):
    metric: CodeName = "json:dumps"


class Outer(PluginOptions):
    plain: str = ""
    one: CodeName | None = None
    several: list[CodeName] = Field(default_factory=list)
    named: dict[str, CodeName | int] = Field(default_factory=dict)
    inner: Inner = Inner()
    inners: list[Inner] = Field(default_factory=list)
    part: SubSpace | None = None


def test_options_that_name_code_are_found_by_their_type_wherever_they_stand():
    document = {
        "plain": "a:b",
        "one": {"choice": ["a:one", "b:one"]},
        "several": ["a:several"],
        "named": {"x": "a:named", "y": 1},
        "inner": {"metric": "a:inner"},
        "inners": [{"metric": "json:dumps"}, {"metric": "a:inners"}],
        "part": {"name": "tower", "image": NNI},
    }
    found = {"a:one", "b:one", "a:several", "a:named", "a:inner", "a:inners", "this_is_mine:Space"}
    assert set(code_names(Outer, document)) == found
    assert not set(code_names(Outer, Outer().model_dump()))
    assert set(code_names(WatchingSection, {"on_trial_end": "a:b", "hook_seconds": 3})) == {"a:b"}
    assert list(code_names(Outer, {"inner": 3, "several": {"a": None}, "named": [], "part": 5})) == []


@pytest.fixture
def strangers(small_config, tmp_path):
    """A finished run, and a way to write into its journal what no search wrote there."""
    search(small_config | {"budget": {"trials": 2}}, tmp_path / "run", inline=True)

    def change(statement, *values):
        with sqlite3.connect(tmp_path / "run" / "journal.sqlite") as db:
            db.executescript(statement) if not values else db.execute(statement, values)
        db.close()

    return tmp_path / "run", change


def test_links_in_a_run_lead_nowhere(strangers, tmp_path):
    run, _ = strangers
    mine = tmp_path / "mine"
    mine.write_text("dear to me")
    for name in ("config.yaml", "status.part", "pareto.png", "lock", "weights/3.part", "status.json", "more"):
        path = run / name
        kept = path.read_bytes() if path.is_file() else None
        path.unlink(missing_ok=True)
        path.symlink_to(mine)
        refused = nas_meta("resume", run, "--inline", "--set", "budget.trials=3", check=1).stderr
        assert f"{name} is a link out of the run directory" in refused and mine.read_text() == "dear to me"
        path.unlink()
        if kept is not None:
            path.write_bytes(kept)
    number = json.loads(nas_meta("best", run, "--json").stdout)["id"]
    weights = run / "weights" / f"{number}.safetensors"
    for target, words in (("/etc/passwd", "is damaged"), ("/dev/zero", "were not kept")):
        weights.unlink()
        weights.symlink_to(target)
        assert words in nas_meta("export", run, "--to", tmp_path / "model", check=1).stderr
    weights.unlink()
    os.mkfifo(weights)
    assert "were not kept" in nas_meta("export", run, "--to", tmp_path / "model", check=1).stderr


def test_an_id_that_is_a_path_names_no_file(strangers, tmp_path):
    run, change = strangers
    change(
        "ALTER TABLE trials RENAME TO t; CREATE TABLE trials AS SELECT '../../mine' AS id, architecture, seed, "
        "fidelity, status, metrics, error, started, finished, planned FROM t"
    )
    for command in (("trials", run), ("best", run), ("export", run, "--to", tmp_path / "model")):
        assert "its id is not a whole number" in nas_meta(*command, check=1).stderr
    assert not (tmp_path / "model").exists()


def test_what_a_run_says_cannot_steer_the_terminal(strangers):
    run, change = strangers
    change("UPDATE trials SET status = 'failed', metrics = '{}', error = ? WHERE id = 1", "\x1b]0;mine\x07[red]\n[/x]")
    shown = nas_meta("trials", run).stdout
    assert r"\x1b]0;mine\x07[red]\n[/x]" in shown and "\x1b" not in shown


MODEL = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import BertConfig, BertModel, BertTokenizerFast
"""


def test_the_code_and_pickles_of_a_model_folder_that_a_run_names_are_not_run(strangers, tiny_model, tmp_path):
    """Neither on a terminal, where transformers would ask, nor for its tokenizer."""
    run, change = strangers
    mark = tmp_path / "mark"
    (text,) = sqlite3.connect(run / "journal.sqlite").execute("SELECT value FROM info WHERE key = 'config'").fetchone()
    for kind in ("auto_map", "pickle", "tokenizer"):
        model = tmp_path / kind
        shutil.copytree(tiny_model, model)
        (model / "evil.py").write_text(MODEL.format(mark=str(mark)))
        described = json.loads((model / "config.json").read_text())
        if kind == "auto_map":
            described |= {
                "model_type": "evil",
                "auto_map": {"AutoConfig": "evil.BertConfig", "AutoModel": "evil.BertModel"},
            }
        elif kind == "pickle":
            (model / "model.safetensors").unlink()
            (model / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
        else:
            settings = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.BertTokenizerFast", None]}}
            (model / "tokenizer_config.json").write_text(json.dumps(settings))
            (model / "vocab.txt").unlink()
            (model / "tokenizer.json").unlink()
        (model / "config.json").write_text(json.dumps(described))
        document = json.loads(text)
        document["space"]["model"] = str(model)
        change("UPDATE info SET value = ? WHERE key = 'config'", json.dumps(document))
        for command in (("resume", run, "--inline", "--set", "budget.trials=3"), ("trial", run, 1, "--rerun")):
            refused = nas_meta(*command, check=2).stderr
            words = "cannot be resumed with other data or models" if command[0] == "resume" else "cannot be loaded"
            assert words in refused and str(model) in refused
        assert not mark.exists()
