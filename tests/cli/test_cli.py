"""The smaller commands, as typed."""

import json
import subprocess

import jsonschema
import pytest
import yaml
from command_line import PROGRAM, nas_meta
from installed import shipped

from nas_meta.cli.main import app
from nas_meta.core import plugins


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_what_is_installed_is_listed_and_each_described(kind, capsys):
    def said(*arguments):
        app(arguments, standalone_mode=False)  # in this process: sixteen others take their time
        return json.loads(capsys.readouterr().out)

    names = shipped(kind)
    listed = {row["name"]: row for row in said(kind, "--json")}
    assert set(names) <= set(listed)
    assert all(listed[n]["broken"] is None and listed[n]["summary"].endswith(".") for n in names)
    for name in names if kind != "spaces" else ["bert-subnet"]:  # describing a space counts its architectures
        described = said(kind, name, "--json")
        assert all(option["description"] for option in described["options"]), name
    wrong = nas_meta(kind, sorted(names)[0] + "x", check=2)
    assert f"did you mean '{sorted(names)[0]}'" in wrong.stderr


def test_a_new_space_works_as_written(tmp_path):
    said = nas_meta("space", "new", "tiny encoder", cwd=tmp_path).stdout
    assert "tiny_encoder.py:TinyEncoder" in said
    lines = (tmp_path / "tiny_encoder.py").read_text().splitlines()
    assert len(lines) <= 26
    checked = nas_meta("space", "check", "tiny_encoder.py:TinyEncoder", cwd=tmp_path).stdout
    assert checked.count("ok ") == 5 and "18 architectures" in checked
    assert "exists already" in nas_meta("space", "new", "TinyEncoder", cwd=tmp_path, check=2).stderr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def choices(self): return {'w': [1]}\n    def build(self, a): return 3", "returned int"),
        ("def choices(self): return {}\n    def build(self, a): return 3", "choices"),
        ("def choices(self): return {'w': [1]}", "lacks the method build"),
        (
            "def choices(self): return {'w': [1]}\n"
            "    def build(self, a):\n"
            "        import random, torch\n"
            "        class M(torch.nn.Module):\n"
            "            def __init__(self):\n"
            "                super().__init__()\n"
            "                self.e = torch.nn.Embedding(50, random.randint(1, 10**6))\n"
            "            def forward(self, input_ids, attention_mask): return self.e(input_ids)\n"
            "        return M()",
            "twice gives different shapes",
        ),
        (
            "def choices(self): return {'w': [1]}\n"
            "    def build(self, a):\n"
            "        import torch\n"
            "        class M(torch.nn.Module):\n"
            "            def __init__(self):\n"
            "                super().__init__()\n"
            "                self.e = torch.nn.Embedding(50, 4)\n"
            "            def forward(self, input_ids, attention_mask): return self.e(input_ids).detach()\n"
            "        return M()",
            "does not require grad",
        ),
    ],
)
def test_a_wrong_space_is_told_in_words(tmp_path, body, words):
    file = tmp_path / "wrong.py"
    file.write_text(f"from nas_meta import SearchSpace\nclass Wrong(SearchSpace):\n    {body}\n")
    assert words in nas_meta("space", "check", f"{file}:Wrong", check=1).stdout


def test_the_config_is_printed_whole_and_fits_its_schema(small_config_file):
    printed = yaml.safe_load(nas_meta("config", small_config_file, "--set", "budget.trials=9").stdout)
    assert printed["budget"]["trials"] == 9 and printed["learner"]["training"]["clip"] == 1.0
    schema = json.loads(nas_meta("config", "--schema").stdout)
    jsonschema.validate(printed, schema)
    printed["budget"]["trialz"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(printed, schema)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["serch", "x.yaml"], "search"),
        (["search"], "CONFIG"),
        (["search", "nowhere.yaml"], "nowhere.yaml"),
        (["trials", "nowhere"], "is not a run"),
        (["config"], "--schema"),
        (["space", "new", "12"], "cannot name a class"),
    ],
)
def test_what_is_mistyped_is_answered(typed, words):
    done = subprocess.run([*PROGRAM, *typed], capture_output=True, text=True)
    assert done.returncode in (1, 2) and words in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""
