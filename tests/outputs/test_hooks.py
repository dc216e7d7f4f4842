"""Hooks: commands and functions that hear of the ends of trials and of the search."""

import json
import stat
import sys

import pytest
import yaml

from nas_meta import resume, search
from nas_meta.config.resolved import read_config
from nas_meta.core.signals import Interrupted
from nas_meta.errors import ConfigError, PluginError
from nas_meta.journal.status import read_status

HOOK = """#!{python}
import json, pathlib, sys
event = json.load(sys.stdin)
with open({file!r}, "a") as file:
    file.write(json.dumps(event) + "\\n")
"""


@pytest.fixture
def told(tmp_path):
    """A program that writes every event down, and what reads them."""
    program, file = tmp_path / "hook with a space", tmp_path / "events"
    program.write_text(HOOK.format(python=sys.executable, file=str(file)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program), lambda: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def python_hooks(tmp_path):
    """A file with hooks that are functions."""
    file = tmp_path / "hooks.py"
    file.write_text(
        "import json, time\nfrom pathlib import Path\n"
        "def write(event):\n"
        f"    with open({str(tmp_path / 'events')!r}, 'a') as file:\n"
        "        file.write(json.dumps(event) + '\\n')\n"
        "def breaks(event):\n    raise KeyError('no such room')\n"
        "def leaves(event):\n    raise SystemExit\n"
        "def hangs(event):\n    time.sleep(300)\n"
    )
    return file


@pytest.mark.slow
def test_a_command_hears_of_every_trial_and_of_the_end(small_config, told, tmp_path):
    command, events = told
    small_config["watching"] = {"on_trial_end": [command, "$(touch no); *"], "on_search_end": [command]}
    run = search(small_config | {"budget": {"trials": 3}}, tmp_path / "run", inline=True)
    *trials, end = events()
    assert [e["event"] for e in trials] == ["trial_end"] * 3 and end["event"] == "search_end"
    assert [e["trial"] for e in trials] == [json.loads(json.dumps(t.as_dict())) for t in run.trials]
    assert {e["run_dir"] for e in [*trials, end]} == {str((tmp_path / "run").resolve())}
    assert (end["phase"], end["error"], end["trials"]) == ("done", None, 3)
    assert end["best"] == json.loads(json.dumps(run.best.as_dict()))
    assert not read_status(run).troubles and not (tmp_path / "no").exists()


def test_a_function_hears_of_searches_that_fail_or_are_interrupted(
    small_config, fragile_learner, python_hooks, tmp_path
):
    small_config["watching"] = {"on_search_end": f"{python_hooks}:write"}
    small_config["budget"] = {"trials": 1}
    broken = small_config | {"learner": {"name": fragile_learner, "steps": 4}}
    with pytest.raises(Exception, match="too dark"):
        search(broken, tmp_path / "failed", inline=True)

    def breaks(status):
        if status.steps.get(1) == 2:
            raise MemoryError("all gone")

    with pytest.raises(MemoryError):
        search(small_config, tmp_path / "broken", inline=True, watch=breaks)

    def interrupt(status):
        if status.steps.get(1) == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        search(small_config, tmp_path / "interrupted", inline=True, watch=interrupt)
    failed, broke, interrupted = map(json.loads, (tmp_path / "events").read_text().splitlines())
    assert failed["phase"] == "failed" and "ZeroDivisionError: too dark" in failed["error"] and failed["best"] is None
    assert broke["phase"] == "failed" and broke["error"] == "MemoryError: all gone"
    assert interrupted["phase"] == "interrupted" and interrupted["trials"] == 1


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        (["false"], "watching.on_trial_end failed: false exited with 1"),
        pytest.param(
            [sys.executable, "-c", "print('on the way'); raise SystemExit('no such room')"],
            "exited with 1: no such room",
            marks=pytest.mark.slow,
        ),
        (["sleep", "300"], "watching.on_trial_end failed: sleep 300 took longer than 0.5 seconds"),
        ("breaks", "watching.on_trial_end failed: KeyError: 'no such room'"),
        pytest.param("leaves", "watching.on_trial_end failed: SystemExit: no message", marks=pytest.mark.slow),
        pytest.param(
            "hangs", "a hook was still running 0.5 seconds after the end of the search", marks=pytest.mark.slow
        ),
    ],
    ids=["fails", "fails with words", "hangs", "raises", "exits", "a function hangs"],
)
def test_a_hook_that_fails_is_told_once_and_the_search_goes_on(hook, sentence, small_config, python_hooks, tmp_path):
    hook = f"{python_hooks}:{hook}" if isinstance(hook, str) else hook
    hangs = "sleep" in hook or str(hook).endswith(":hangs")
    small_config["watching"] = {"on_trial_end": hook, "hook_seconds": 0.5 if hangs else 60}
    run = search(small_config | {"budget": {"trials": 2}}, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 2
    troubles = read_status(run).troubles
    assert sum(sentence in trouble for trouble in troubles) == 1


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            "[no-such-program-here, -x]",
            "c.yaml:2: watching.on_trial_end: the command no-such-program-here does not exist;",
        ),
        ("missing.py:told", "c.yaml:2: watching.on_trial_end: .*there is no file missing.py"),
        ("{hooks}:wrote", "c.yaml:2: watching.on_trial_end: .*has no function 'wrote'; did you mean 'write'"),
        ("no_such_package.at_all:told", "c.yaml:2: watching.on_trial_end: the module no_such_package.at_all cannot be"),
        ("json:dump_it", "c.yaml:2: watching.on_trial_end: json has no function 'dump_it'; did you mean 'dump'"),
    ],
)
def test_a_hook_that_is_not_there_is_refused_before_anything_runs(value, sentence, python_hooks, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(f"watching:\n  on_trial_end: {value.format(hooks=python_hooks)}\n")
    with pytest.raises(ConfigError, match=sentence):
        search(read_config(config), tmp_path / "run", inline=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "watching: {on_trial_ends: [a]}\n",
            "'watching.on_trial_ends' is not a known key; did you mean 'on_trial",
        ),
        (
            "watching: {on_trial_end: notify}\n",
            "watching.on_trial_end: 'notify' is not a hook; expected a command",
        ),
        ("watching: {on_search_end: [1]}\n", "watching.on_search_end: .1. is not a hook"),
        ("watching: {prometheus: 0}\n", "watching.prometheus is 0; expected greater than or equal to 1"),
        ("watching: {wandb: {mode: ofline}}\n", "watching.wandb.mode is 'ofline'; expected 'offline' or 'online'"),
        ("watching: {wandb: {projekt: a}}\n", "'watching.wandb.projekt' is not a known key; did you mean 'project'"),
    ],
)
def test_a_wrong_key_gets_a_sentence(text, sentence, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml:1: .*" + sentence):
        read_config(tmp_path / "c.yaml")


@pytest.mark.slow
def test_watching_may_change_when_a_search_goes_on(small_config, told, tmp_path):
    command, events = told
    search(small_config | {"budget": {"trials": 1}}, tmp_path / "run", inline=True)
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(small_config | {"budget": {"trials": 2}, "watching": {"on_trial_end": [command]}}))
    search(read_config(config), tmp_path / "run", inline=True, resume=True)
    assert [e["trial"]["id"] for e in events()] == [2]
    # What only the run names is not run; what the user names is.
    with pytest.raises(PluginError, match=r"as watching\.on_trial_end, which would be run; expected --allow-plugins"):
        resume(tmp_path / "run", ["budget.trials=3"], inline=True)
    resume(tmp_path / "run", ["budget.trials=3", "watching.on_trial_end=null"], inline=True)
    assert [e["trial"]["id"] for e in events()] == [2]
    resume(tmp_path / "run", ["budget.trials=4", f"watching.on_trial_end=[{json.dumps(command)}]"], inline=True)
    resume(tmp_path / "run", ["budget.trials=5"], inline=True, allow_plugins=True)
    assert [e["trial"]["id"] for e in events()] == [2, 4, 5]
