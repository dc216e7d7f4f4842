"""A search from Python: log lines, progress, callbacks, an earlier run to learn from, architectures to try first."""

import contextlib
import logging
import re

import numpy as np
import pytest
from landscapes import context, score

from nas_meta import Architecture, Outcome, resume, search
from nas_meta.controller.extras import learning_strategies
from nas_meta.core import plugins
from nas_meta.errors import ConfigError, RunError
from nas_meta.journal.database import Journal
from nas_meta.journal.status import JOB
from nas_meta.strategy.given import GivenFirst

SMALL = {"layer0.keep": True, "layer1.keep": False, "layer0.heads": 2, "layer0.ffn": 32}


@pytest.fixture
def config(small_config):
    """Config of a search of a second with a strategy that learns from others."""
    small_config["evaluation"] |= {"check_models": False, "interim_every": 0, "episodes": 8, "test_episodes": 8}
    small_config["learner"]["steps"] = 1
    return small_config | {"strategy": {"name": "tpe", "startup": 2}, "budget": {"trials": 3}}


@contextlib.contextmanager
def unconfigured():
    """Logging as it is in a fresh interpreter, without the handlers of pytest."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = handlers


def test_a_line_per_trial_is_logged_unless_logging_is_configured(config, tmp_path, capsys):
    logger = logging.getLogger("nas_meta")
    with unconfigured():
        search(config, tmp_path / "shown", inline=True)
        lines = [line for line in capsys.readouterr().err.splitlines() if "trial" in line]
        beginnings = [re.match(r"\[I [-\d]+ [:\d]+\] trial (\d): ", line)[1] for line in lines]
        assert beginnings == ["1", "2", "3"] and lines[0].endswith("; the best so far") and "best" in lines[2]
        assert logger.handlers == [] and logger.level == logging.NOTSET  # as before
        logger.setLevel(logging.WARNING)
        try:
            search(config, tmp_path / "quiet", inline=True)
        finally:
            logger.setLevel(logging.NOTSET)
        assert "trial" not in capsys.readouterr().err


def test_the_lines_reach_the_handlers_of_the_user_only(config, tmp_path, caplog, capsys):
    with caplog.at_level(logging.INFO, "nas_meta"):
        search(config, tmp_path / "run", inline=True)
    assert [m.split(":")[0] for m in caplog.messages if m.startswith("trial")] == ["trial 1", "trial 2", "trial 3"]
    assert "trial 1" not in capsys.readouterr().err


def test_progress_prints_what_the_command_prints_and_watch_is_still_called(config, tmp_path, capsys):
    phases, tested = [], []

    def watch(status):
        phases.append(status.phase)
        if status.phase == "meta-testing" and status.job_steps:
            tested.append((status.steps[JOB], status.job_steps))

    search(config, tmp_path / "run", inline=True, watch=watch, progress=True)
    out = capsys.readouterr().out
    done, total = zip(*dict.fromkeys(tested), strict=True)
    assert done == tuple(range(total[0] + 1)) and total[0] >= 2  # one by one
    assert "trial 3: " in out and "meta-testing the best" in out and phases[-1] == "done"


def test_callbacks_get_the_run_and_every_trial_once_also_after_a_resume(config, tmp_path, caplog):
    seen = []

    def note(run, trial):
        seen.append((trial.id, trial.status, run.trial(trial.id).metrics == trial.metrics, run.best.id <= trial.id))

    def fragile(run, trial):
        raise ZeroDivisionError("too dark")

    search(config, tmp_path / "run", inline=True, callbacks=[fragile, note])
    assert seen == [(i, "completed", True, True) for i in (1, 2, 3)]
    logged = [record for record in caplog.records if "the callback" in record.message]
    assert len(logged) == 3 and "fragile raised after trial 1; the search continues" in logged[0].message
    assert logged[0].exc_info[0] is ZeroDivisionError
    resume(tmp_path / "run", ["budget.trials=4"], inline=True, callbacks=[note])
    assert [row[0] for row in seen] == [1, 2, 3, 4]


def test_enqueued_architectures_come_first_and_stay_first_after_a_resume(config, tmp_path):
    other = SMALL | {"layer0.heads": 4}
    one = config | {"budget": {"trials": 1}}
    run = search(one, tmp_path / "run", inline=True, enqueue=[SMALL, Architecture(other)])
    assert [trial.architecture for trial in run.trials] == [SMALL]
    run = resume(tmp_path / "run", ["budget.trials=4"], inline=True)
    assert [trial.architecture for trial in run.trials][:2] == [SMALL, other] and run.count == 4
    straight = search(config | {"budget": {"trials": 4}}, tmp_path / "straight", inline=True, enqueue=[SMALL, other])
    # The strategies were built for other budgets, but tpe does not depend on it: the history alone decides.
    assert [t.architecture for t in straight.trials] == [t.architecture for t in run.trials]


def test_every_strategy_runs_what_is_enqueued(config, tmp_path):
    config["strategy"] = {"name": "evolution", "population": 2, "sample": 1}
    run = search(config, tmp_path / "run", inline=True, enqueue=[SMALL])
    assert run.trials[0].architecture == SMALL and run.count == 3
    assert [trial.status for trial in run.trials] == ["completed"] * 3


def test_a_warm_start_reaches_the_strategy_and_its_replay(config, tmp_path):
    first = search(config, tmp_path / "first", inline=True)
    second = search(config, tmp_path / "second", inline=True, warm_start=first)
    known = Journal.open(tmp_path / "second").get("session")["known"]
    assert [architecture for architecture, _ in known] == [t.architecture for t in first.trials]
    assert second.trials[0].architecture != first.trials[0].architecture  # no longer a random start
    before = second.trials
    resumed = resume(tmp_path / "second", ["budget.trials=5"], inline=True)
    assert resumed.count == 5 and resumed.trials[:3] == before


@pytest.mark.parametrize(
    ("change", "given", "sentence"),
    [
        ({}, {"callbacks": print}, "callbacks is a builtin_function_or_method; expected a list of functions"),
        ({}, {"callbacks": ["print"]}, "callbacks[0] is a str; expected a function of a run and a trial"),
        ({}, {"enqueue": SMALL}, "enqueue is a dict; expected a list of architectures"),
        ({}, {"enqueue": [3]}, "enqueue[0] is an int; expected a dict"),
        ({}, {"enqueue": [SMALL, SMALL | {"layer0.heads": 3}]}, "enqueue[1]: 'layer0.heads' cannot be 3"),
        ({}, {"enqueue": [SMALL | {"layers": 3}]}, "enqueue[0]: 'layers' is not a choice of"),
        ({}, {"warm_start": 3}, "warm_start is an int; expected a run"),
        ({}, {"warm_start": "first"}, "first is not a run"),
        ({"strategy": {"name": "evolution"}}, {"warm_start": "run"}, "'evolution' learns only from its own proposals"),
        (
            {"heads": [1.0]},
            {"warm_start": "run"},
            "searched another space: space.heads is [1.0, 0.5] there and [1.0] here",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence(config, tmp_path, change, given, sentence, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if given.get("warm_start") == "run":
        (tmp_path / "run").mkdir()
        from nas_meta.config.resolved import resolve

        Journal.create(tmp_path / "run", config=resolve(config).document).close()
    config["space"] = config["space"] | {k: v for k, v in change.items() if k == "heads"}
    config |= {k: v for k, v in change.items() if k == "strategy"}
    with pytest.raises((ConfigError, RunError)) as raised:
        search(config, tmp_path / "new", inline=True, **given)
    assert sentence in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "new").exists()


def outcome(architecture):
    value = score(architecture)
    return Outcome(architecture, "completed", {"accuracy": value}, value, (value,))


@pytest.mark.parametrize("name", ["tpe", "motpe", "surrogate", "auto"])
def test_a_strategy_learns_from_others_and_repeats_itself(name):
    assert name in learning_strategies()
    search_context = context(trials=30)
    rng = np.random.default_rng(1)
    known = [outcome(search_context.space.sample(rng)) for _ in range(20)]

    def proposals(known):
        strategy = GivenFirst(plugins.load("strategies", name)(search_context), [known[0].architecture], known)
        asked = []
        for _ in range(8):
            asked.append(strategy.ask())
            strategy.tell(outcome(asked[-1]))
        strategy.close()
        return asked

    asked = proposals(known)
    assert asked[0] == known[0].architecture and asked == proposals(known)
    assert asked[1:] != proposals(known[:1])[1:]
