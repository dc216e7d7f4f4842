"""What a plugin author's type checker and editor see."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nas_meta

ROOT = Path(__file__).parents[2]
PLUGINS = sorted((ROOT / "tests" / "compat" / "plugins").glob("*.py"))
WRONG = """
from collections.abc import Mapping, Sequence

from torch import nn

import nas_meta
from nas_meta import Architecture, SearchSpace, Strategy


class Space(SearchSpace):
    def choices(self) -> Mapping[str, Sequence[int]]:
        return {"width": 8}

    def build(self, architecture: str) -> nn.Module:
        return nn.Linear(architecture.values["width"], 1)


class Guess(Strategy):
    def ask(self) -> dict[str, int]:
        return {}


def start() -> str:
    Guess(None)
    nas_meta.search({}, where="runs")
    return nas_meta.load_run("runs/first").best.metrics["accuracy"]
"""
EXPECTED = {  # lines of WRONG, and mypy's word for what is wrong there
    (12, "dict-item"), (14, "override"), (15, "attr-defined"), (19, "override"), (24, "abstract"), (24, "arg-type"),
    (25, "call-arg"), (26, "return-value"),
}  # fmt: skip


def test_type_checkers_see_the_names_that_are_exported():
    module = ast.parse(Path(nas_meta.__file__).read_text())
    (block,) = [node for node in module.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert seen == {name: (source, name) for name, source in nas_meta._EXPORTS.items()}


def mypy(*arguments, tmp_path):
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary"]
    environment = {**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(tmp_path.parent / "mypy-cache")}
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert not done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_public_api_and_the_plugins_that_use_it_are_strictly_typed(tmp_path):
    document = (ROOT / "pyproject.toml").read_text()
    modules = [ROOT / line for line in ast.literal_eval("[" + document.split("\nfiles = [")[1].split("]")[0] + "]")]
    assert len(modules) >= 12 and len(PLUGINS) >= 5
    assert mypy("--explicit-package-bases", *modules, *PLUGINS, tmp_path=tmp_path) == ""


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_plugin_that_uses_it_wrongly_is_told_where(tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG)
    told = [line.split(":", 2) for line in mypy("wrong.py", tmp_path=tmp_path).splitlines() if " error: " in line]
    assert {(int(number), text.rpartition("[")[2].rstrip("]")) for _, number, text in told} == EXPECTED, told
