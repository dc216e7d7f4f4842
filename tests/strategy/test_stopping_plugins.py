"""Stopping rules of a plugin file: the example of the documentation, and rules that are wrong."""

from pathlib import Path

import pytest

from nas_meta import load_run, search
from nas_meta.errors import NasMetaError, PluginError


@pytest.mark.slow
def test_a_rule_of_a_file_stops_trials(small_config, tmp_path):
    """The example of the documentation."""
    text = (Path(__file__).parents[2] / "docs" / "stopping.md").read_text()
    (tmp_path / "floor.py").write_text(text.split('title="floor.py"\n')[1].split("```")[0].replace("0.4", "1.1"))
    small_config["stopping"] = {"name": f"{tmp_path / 'floor.py'}:Floor", "rungs": [2]}
    with pytest.raises(NasMetaError, match="no trial was completed: all 6 were stopped early"):
        search(small_config, tmp_path / "run", inline=True)
    assert {(t.status, t.fidelity) for t in load_run(tmp_path / "run").trials} == {("stopped", 2)}
    (tmp_path / "floor.py").unlink()
    with pytest.raises(PluginError, match=r"names the plugin file .*floor.py:Floor, whose code would be run"):
        load_run(tmp_path / "run").config  # noqa: B018


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    pass", "lacks the method should_continue"),
        (
            "    def should_continue(self, report, others):\n        return 1 / 0",
            "should_continue.. raised ZeroDivisionError",
        ),
        (
            "    def __init__(self, options, objectives):\n        raise OSError('no key')",
            "__init__.. raised OSError: no key",
        ),
    ],
)
def test_a_rule_that_is_wrong_is_named(body, words, small_config, tmp_path):
    file = tmp_path / "wrong.py"
    own = (
        body
        if "__init__" not in body
        else body + "\n    def should_continue(self, report, others):\n        return True"
    )
    file.write_text(f"from nas_meta import StoppingRule\nclass Wrong(StoppingRule):\n{own}\n")
    small_config["stopping"] = {"name": f"{file}:Wrong", "rungs": [2]}
    with pytest.raises(NasMetaError, match=f"Wrong.*{words}"):
        search(small_config, tmp_path / "run", inline=True)
