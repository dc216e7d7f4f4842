"""Every trial can be repeated from its journal row."""

import json

import pytest
from command_line import nas_meta

from nas_meta import load_run, search
from nas_meta.outputs.rerun import rerun


@pytest.mark.slow
def test_the_command_shows_every_step_and_the_same_accuracy(small_config, tmp_path):
    run = search(small_config, tmp_path / "run", inline=True)
    for trial in run.trials[1:2]:
        said = nas_meta("trial", tmp_path / "run", trial.id, "--rerun").stdout
        assert f"rerun: accuracy {trial.metrics['accuracy']} (identical to the journal)" in said
        assert [line.split()[1] for line in said.splitlines() if line.startswith("step ")] == ["1", "2", "3", "4"]
    printed = json.loads(nas_meta("trial", tmp_path / "run", 2, "--json").stdout)
    assert printed["architecture"] == run.trial(2).architecture and "rerun" not in printed
    assert "has no trial 9; it has 6" in nas_meta("trial", tmp_path / "run", 9, check=1).stderr


@pytest.mark.slow
def test_a_trial_that_was_stopped_ends_at_its_rung_again(small_config, tmp_path):
    small_config |= {"stopping": {"name": "asha", "rungs": [1, 2], "episodes": 6}, "strategy": {"name": "random"}}
    run = search(small_config, tmp_path / "run", inline=True)
    stopped = [t for t in run.trials if t.status == "stopped"]
    assert {t.fidelity for t in stopped} <= {1, 2} and stopped
    for trial in stopped:
        steps = []
        again = rerun(run, trial, lambda step, steps=steps: steps.append(step.step))
        assert again["accuracy"] == trial.metrics["accuracy"] and steps[-1] == trial.fidelity


@pytest.mark.slow
def test_a_trial_that_began_with_a_supernets_weights_begins_with_them_again(small_config, tmp_path):
    small_config["strategy"] = {"name": "supernet", "steps": 3, "judged": 6, "texts": 4}
    small_config["budget"] = {"trials": 2}
    search(small_config, tmp_path / "run", inline=True)
    run = load_run(tmp_path / "run")
    for trial in run.trials:
        assert rerun(run, trial)["accuracy"] == trial.metrics["accuracy"]


def test_what_a_learner_raises_comes_through(small_config, fragile_learner, tmp_path):
    small_config["learner"]["name"] = fragile_learner
    small_config["budget"] = {"trials": 1}
    with pytest.raises(Exception, match="too dark"):
        search(small_config, tmp_path / "run", inline=True)
    run = load_run(tmp_path / "run", allow_plugins=True)
    with pytest.raises(ZeroDivisionError):
        rerun(run, run.trial(1))
