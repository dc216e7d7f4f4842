"""What was in the journal but not in the monitors when a search was killed is shown when it resumes."""

import json

import pytest

from nas_meta import load_run, resume, search
from nas_meta.controller.shown_trials import FILE, ShownTrials
from nas_meta.controller.trial_loop import TrialLoop
from nas_meta.outputs.monitors.hooks import Hooks

HOOK = """
def note(event):
    with open({file!r}, "a") as file:
        file.write(f"{{event['trial']['id']}} {{event['trial']['status']}}\\n")
"""


class Crash(Exception):
    pass


def never(*_):
    raise Crash


@pytest.fixture
def document(small_config, tmp_path):
    (tmp_path / "hook.py").write_text(HOOK.format(file=str(tmp_path / "noted")))
    return small_config | {
        "evaluation": {"episodes": 5, "test_episodes": 2, "test_best": 0},
        "budget": {"trials": 4},
        "watching": {"on_trial_end": f"{tmp_path / 'hook.py'}:note"},
    }


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator.Tags()["scalars"], accumulator.SummaryMetadata("_hparams_/session_end_info")


@pytest.mark.slow
def test_a_trial_that_was_not_shown_is_shown_at_last(document, monkeypatch, tmp_path):
    publish = TrialLoop._publish_end
    with monkeypatch.context() as patch:
        patch.setattr(TrialLoop, "_publish_end", lambda self, t: (publish if t.id < 2 else never)(self, t))
        with pytest.raises(Crash):
            search(document, tmp_path / "run", inline=True)
    before = load_run(tmp_path / "run").trials
    assert before[1].status == "completed" and (tmp_path / "noted").read_text() == "1 completed\n"
    run = resume(tmp_path / "run", inline=True, allow_plugins=True)
    assert (tmp_path / "noted").read_text().splitlines() == [f"{i} completed" for i in (1, 2, 3, 4)]
    for trial in run.trials:
        (folder,) = (tmp_path / "run" / "tensorboard").glob(f"trial-{trial.id:04d}-*")
        tags, ended = scalars(folder)
        assert "meta-validation/accuracy" in tags and "trial/params" in tags and ended
        log = (tmp_path / "run" / "logs" / f"trial-{trial.id:04d}.log").read_text()
        assert log.count(f"trial {trial.id} is completed") == 1
    assert (tmp_path / "run" / FILE).read_text().split() == ["1", "2", "3", "4"]
    resume(tmp_path / "run", inline=True, allow_plugins=True)
    assert len((tmp_path / "noted").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_hook_that_was_still_waiting_is_called_again(document, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(Hooks, "_run_hooks", lambda self: None)  # as if the first hook never returned
        document["watching"]["hook_seconds"] = 0.1
        search(document, tmp_path / "run", inline=True)
    assert not (tmp_path / "noted").exists()
    resume(tmp_path / "run", ["watching.hook_seconds=60"], inline=True, allow_plugins=True)
    assert (tmp_path / "noted").read_text().splitlines() == [f"{i} completed" for i in (1, 2, 3, 4)]


def test_an_older_run_has_shown_everything_and_a_damaged_file_nothing(tmp_path):
    assert ShownTrials(tmp_path).restore({1, 2}) == []
    (tmp_path / FILE).write_bytes(b"1\n\xff\x00 -7 99999999999999999999999999\n" + json.dumps({"2": 3}).encode())
    assert ShownTrials(tmp_path).restore({1, 2}) == [2]
    ShownTrials(tmp_path).add([2])
    assert ShownTrials(tmp_path).restore({1, 2, 3}) == [3]
