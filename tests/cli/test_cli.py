"""The smaller commands, as typed."""

import ast
import json
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml
from command_line import PROGRAM, nas_meta
from installed import shipped

from nas_meta import cli, search
from nas_meta.cli.main import app, report
from nas_meta.core import plugins
from nas_meta.errors import ConfigError, PluginError

CLI = Path(cli.__file__).parent


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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("class Tiny: ...\n", "names a file without a class; did you mean '{file}:Tiny'?"),
        ("class A: ...\nclass B: ...\n", "names a file without a class; expected one of: '{file}:A', '{file}:B'"),
        ("raise SystemExit('executed')\n", "has no class; expected a class that extends SearchSpace"),
        ("class (\n", "cannot be read: SyntaxError"),
        (None, "there is no file {file}"),
    ],
)
def test_a_file_without_a_class_lists_its_classes(tmp_path, body, words):
    file = tmp_path / "mine.py"
    if body is not None:
        file.write_text(body)
    with pytest.raises(PluginError) as raised:
        plugins.load("spaces", str(file))
    assert words.format(file=file) in str(raised.value) and "nni" not in str(raised.value)


def test_the_version_the_help_and_the_completion_are_as_users_expect():
    import os

    import nas_meta as package

    assert nas_meta("--version").stdout == f"nas-meta {package.__version__}\n"
    assert nas_meta("search", "-h").stdout == nas_meta("search", "--help").stdout
    typed = {"COMP_WORDS": "nas-meta tr", "COMP_CWORD": "1", "_NAS_META_COMPLETE": "complete_bash"}
    done = subprocess.run(PROGRAM, capture_output=True, text=True, env={**os.environ, **typed})
    assert done.stdout.split() == ["trials", "trial"]


@pytest.mark.parametrize("command", [[], ["search"], ["status"], ["space"], ["space", "check"], ["spaces"]])
def test_flags_have_no_type_in_the_help(command, capsys):
    app([*command, "--help"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "bool" not in printed.lower() and "--help" in printed


@pytest.mark.parametrize("file", sorted(p.name for p in CLI.glob("*.py")))
def test_every_option_names_its_flag(file):
    """Some versions of typer derive it from the metavar otherwise: ``--CONFIG``."""
    for node in ast.walk(ast.parse((CLI / file).read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.Option":
            flags = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            assert flags and all(flag.startswith("-") for flag in flags), f"{file}:{node.lineno}"


def leaves(group, name=()):
    """Every command of a group by its words, also those of inner groups."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*name, word))
        else:
            yield (*name, word), command


def test_every_command_is_in_a_panel_and_its_help_ends_with_an_example_of_it():
    group = typer.main.get_command(app)
    assert all(command.rich_help_panel for command in group.commands.values())
    found = dict(leaves(group))
    assert len(found) > 20
    for words, command in found.items():
        assert command.epilog.startswith(f"Example: nas-meta {' '.join(words)}"), words
        typed = shlex.split(command.epilog)[1 + 1 + len(words) :]
        options = {o for p in command.params for o in p.opts}
        assert {word for word in typed if word.startswith("-")} <= options, words
        assert command.make_context(words[-1], typed).params is not None  # its arguments are complete
    printed = nas_meta("trials", "--help").stdout
    assert "Example: nas-meta trials" in printed


def test_shortcuts_stand_for_keys_and_win():
    from nas_meta.cli.search import shortcuts
    from nas_meta.config.resolved import resolve

    given = ["budget.trials=3", *shortcuts(7, 4, 5)]
    sections = resolve({}, overrides=given).sections
    assert (sections.budget.trials, sections.resources.workers, sections.seed) == (7, 4, 5)
    assert shortcuts(None, None) == []


@pytest.mark.slow
def test_a_shortcut_is_checked_like_its_key(small_config_file, tmp_path):
    typed = ("search", small_config_file, "--run-dir", tmp_path / "run")
    wrong = nas_meta(*typed, "--trials", "0", check=2).stderr
    assert "--set: budget.trials" in wrong and wrong.count("\n") == 1
    nas_meta(*typed, "--inline", "--trials", "1", "--seed", "5")
    printed = nas_meta("resume", tmp_path / "run", "--inline", "--trials", "2").stdout
    assert "trial 2:" in printed
    (row,) = json.loads(nas_meta("runs", tmp_path, "--json").stdout)
    assert (row["trials"], row["total"], row["best"]["seed"]) == (2, 2, 5)


@pytest.mark.parametrize("typed", [["--debug", "best", "nowhere"], ["best", "nowhere", "--debug"]])
def test_a_traceback_is_shown_on_request_only(typed):
    done = subprocess.run([*PROGRAM, *typed], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "nas-meta: nowhere is not a run: it does not exist"
    nas_meta("best", "nowhere", check=1)


def test_an_unexpected_error_is_a_sentence_too(capsys):
    assert report(KeyError("width")) == 1
    assert (
        capsys.readouterr().err == "nas-meta: unexpected error, KeyError: 'width'; add --debug to see its traceback\n"
    )


def test_the_traceback_of_a_strategy_is_in_a_file_that_the_sentence_names(small_config, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from strategies.nni.random_search import Random\n"
        "class Broken(Random):\n"
        "    def tell(self, outcome):\n"
        "        return self.helper()\n"
        "    def helper(self):\n"
        "        raise ZeroDivisionError('too dark')\n"
    )
    small_config["strategy"] = {"name": f"{plugin}:Broken"}
    with pytest.raises(PluginError) as raised:
        search(small_config, tmp_path / "run", inline=True)
    log = tmp_path / "run" / "logs" / "search.log"
    assert str(raised.value) == f"Broken.tell() raised ZeroDivisionError: too dark; its traceback is in {log}"
    assert "in helper" in log.read_text() and "broken.py" in log.read_text()


@pytest.mark.slow
def test_the_api_is_listed_and_a_search_takes_the_path_of_its_config(small_config_file, tmp_path):
    import nas_meta as package

    assert set(package.__all__) <= set(dir(package)) and "__version__" in dir(package)
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        search(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ConfigError, match="config is a list; expected the path of a YAML file"):
        search(["config.yaml"])
    for number, path in enumerate((small_config_file, str(small_config_file))):
        assert search(path, tmp_path / f"run{number}", inline=True).count == 6
