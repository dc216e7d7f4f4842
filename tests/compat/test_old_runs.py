"""A run directory of version 0.1 can be read, exported and resumed, and its exported model loads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import nas_meta
from transformers import AutoModel

from nas_meta import load_run, resume
from nas_meta.config.resolved import read_config
from nas_meta.outputs.export.exported_model import evaluate_folder
from nas_meta.outputs.rerun import rerun

RUNS = Path(__file__).parent / "runs"
TIMES = {"train_seconds", "evaluate_seconds", "peak_memory"}  # of the machine


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The files of version 0.1, in a folder that relative paths of its config start from."""
    folder = tmp_path / "runs"
    shutil.copytree(RUNS, folder)
    monkeypatch.chdir(folder)
    return folder


def comparable(trials):
    """Trials without what depends on the machine."""
    kept = ("id", "architecture", "seed", "fidelity", "status", "error")
    return [
        {key: t[key] for key in kept} | {"metrics": {n: v for n, v in t["metrics"].items() if n not in TIMES}}
        for t in trials
    ]


def close(one, other):
    assert len(one) == len(other)
    for a, b in zip(comparable(one), comparable(other), strict=True):
        assert a["metrics"] == pytest.approx(b["metrics"], abs=1e-6)
        assert {k: v for k, v in a.items() if k != "metrics"} == {k: v for k, v in b.items() if k != "metrics"}


def test_it_is_read(old):
    run = load_run("finished")
    close([t.as_dict() for t in run.trials], json.loads(Path("finished.json").read_text()))
    # Trials 1 and 5 are equally accurate. Version 0.1 took the earlier one, today the cheaper one is the best.
    assert run.best.id == 5 and {t.id for t in run.pareto} == {5}
    assert run.report["trials"].keys() == {"1", "2", "5"}
    assert run.config.options["stopping"].rungs == [1, 2] and run.config.sections.stopping.name == "asha"
    assert "best" in nas_meta("best", "finished").stdout.lower()


def test_it_is_exported_like_then(old):
    nas_meta("export", "finished", "--trial", "1", "--to", "again")
    then, now = (AutoModel.from_pretrained(folder).eval() for folder in ("exported", "again"))
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        torch.testing.assert_close(now(ids).last_hidden_state, then(ids).last_hidden_state)


def test_its_trials_are_repeated(old):
    run = load_run("finished")
    again = rerun(run, run.trial(2))
    assert again["accuracy"] == pytest.approx(run.trial(2).metrics["accuracy"], abs=1e-6)


def test_it_is_resumed_with_the_same_trials(old):
    run = resume("finished", ["budget.trials=8"], inline=True)
    close([t.as_dict() for t in run.trials], json.loads(Path("resumed.json").read_text()))


def test_its_config_and_its_exported_model_are_evaluated(old):
    config = read_config("search.yaml")
    assert config.sections.budget.trials == 6
    score = evaluate_folder("exported", read_config("exported/nas_meta.yaml"), episodes=20)
    assert score["accuracy"] == pytest.approx(load_run("finished").trial(1).metrics["accuracy"], abs=0.2)
