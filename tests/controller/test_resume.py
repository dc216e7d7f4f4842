"""A search that is killed goes on as if nothing had happened."""

import resource
import subprocess
import time

import pytest
import yaml
from command_line import PROGRAM
from installed import TRIAL_STRATEGIES, marked, shipped
from killing import CONTEXT, killed_often, results, run_search

from nas_meta import load_run, resume, search
from nas_meta.errors import ConfigError, NasMetaError, RunError
from nas_meta.journal.database import FILE, Journal
from nas_meta.journal.records import AskTellEvent


@pytest.fixture
def document(small_config):
    evaluation = {"episodes": 10, "test_episodes": 10, "compare": False}
    return small_config | {"evaluation": evaluation, "budget": {"trials": 10}}


@pytest.mark.parametrize("strategy", marked(TRIAL_STRATEGIES, ["evolution"]))
def test_a_search_that_is_killed_ends_with_the_same_trials(strategy, document, tmp_path):
    document["strategy"] = {"name": strategy}
    whole = search(document, tmp_path / "whole", inline=True)
    kills, run = killed_often(document, tmp_path / "killed", times=3)
    assert kills == 3
    assert results(run) == results(whole)
    assert run.report["trials"] == whole.report["trials"]
    assert run.findings == whole.findings


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["evolution", "surrogate"])
def test_twenty_kills_change_nothing(strategy, document, tmp_path):
    document["strategy"], document["budget"] = {"name": strategy}, {"trials": 40}
    whole = search(document, tmp_path / "whole", inline=True)
    kills, run = killed_often(document, tmp_path / "killed", times=20, seed=1)
    assert kills == 20
    assert results(run) == results(whole)


@pytest.mark.parametrize("rule", shipped("stopping", without=["none"], fast=["asha"]))
@pytest.mark.slow
def test_what_was_stopped_at_a_rung_stays_stopped(rule, document, tmp_path):
    document |= {"stopping": {"name": rule, "rungs": [1, 2]}, "strategy": {"name": "random"}}
    whole = search(document, tmp_path / "whole", inline=True)
    kills, run = killed_often(document, tmp_path / "killed", times=4)
    assert kills == 4
    assert results(run) == results(whole)
    assert [(r.trial, r.step, w) for r, w in run.rung_reports] == [(r.trial, r.step, w) for r, w in whole.rung_reports]


class Crash(Exception):
    pass


def interrupted_after(trials, document, directory):
    """A search that breaks off when so many trials have ended, the next one running."""

    def watch(status):
        if sum(t.status != "running" for t in status.trials) >= trials and status.steps.get(trials + 1, 0) > 0:
            raise Crash

    with pytest.raises(Crash):
        search(document, directory, inline=True, watch=watch)


def test_what_was_running_is_run_again_and_nothing_else(document, tmp_path):
    interrupted_after(4, document, tmp_path)
    before = load_run(tmp_path).trials
    assert [t.status for t in before] == ["completed"] * 4 + ["stopped"]
    run = resume(tmp_path, inline=True)
    assert run.trials[:4] == before[:4]
    assert [t.status for t in run.trials] == ["completed"] * 10
    assert run.trials[4].architecture == before[4].architecture


def test_a_finished_search_goes_on_with_a_larger_budget(document, tmp_path):
    first = search(document, tmp_path, inline=True)
    before = first.trials
    run = resume(tmp_path, ["budget.trials=13", "resources.workers=3"], inline=True)
    assert run.trials[:10] == before
    assert len({t.architecture_id for t in run.trials}) == 13
    assert run.config.sections.budget.trials == 13
    assert run.config.document["strategy"] == first.config.document["strategy"]


def test_another_config_is_refused_with_the_difference(document, tmp_path):
    interrupted_after(2, document, tmp_path)
    other = document | {"seed": 4, "learner": document["learner"] | {"steps": 9}, "budget": {"trials": 12}}
    with pytest.raises(ConfigError, match=r"learner.steps is 9, but the run began with 4; seed is 4, but .* 3"):
        search(other, tmp_path, inline=True, resume=True)
    with pytest.raises(ConfigError, match=r"learner\.lr is 0\.5"):
        resume(tmp_path, ["learner.lr=0.5"], inline=True)
    # What the strategy's defaults became is no difference.
    assert len(search(document | {"budget": {"trials": 4}}, tmp_path, inline=True, resume=True).trials) == 4


@pytest.mark.slow
def test_the_hours_of_all_sessions_count(document, tmp_path):
    interrupted_after(3, document, tmp_path)
    run = resume(tmp_path, ["budget.hours=0.00001"], inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 3 + ["stopped"]


def test_a_strategy_that_does_not_follow_from_its_seed_is_refused(document, tmp_path):
    interrupted_after(3, document, tmp_path)
    journal = Journal.append(tmp_path)
    first, second = journal.trials()[:2]
    journal.write(first.__class__(**{**vars(first), "architecture": second.architecture}))
    journal.close()
    with pytest.raises(RunError, match="does not repeat its proposal of trial 1"):
        resume(tmp_path, inline=True)
    assert len(load_run(tmp_path).trials) == 4


@pytest.mark.slow
def test_a_journal_in_which_nothing_stands_yet_is_begun_anew(document, tmp_path):
    (tmp_path / FILE).touch()
    assert len(search(document, tmp_path, inline=True, resume=True).trials) == 10


@pytest.mark.slow
def test_a_second_search_in_the_same_directory_is_refused(document, tmp_path):
    child = CONTEXT.Process(target=run_search, args=(document | {"budget": {"trials": 200}}, tmp_path))
    child.start()
    try:
        while not Journal.exists(tmp_path) or not load_run(tmp_path).trials:
            time.sleep(0.05)
        for second in (lambda: resume(tmp_path, inline=True), lambda: search(document, tmp_path, resume=True)):
            with pytest.raises(RunError, match="another search is running in"):
                second()
    finally:
        child.kill()
        child.join()
    assert {t.status for t in resume(tmp_path, ["budget.trials=1"], inline=True).trials} == {"completed"}


def test_a_directory_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        resume(tmp_path)


def test_an_older_journal_is_read_but_not_gone_on_with(document, tmp_path):
    interrupted_after(2, document, tmp_path)
    journal = Journal.append(tmp_path)
    journal.set("version", 1)
    journal.close()
    assert len(load_run(tmp_path).trials) == 3
    with pytest.raises(RunError, match="older nas-meta"):
        resume(tmp_path, inline=True)


def test_a_damaged_journal_says_so(document, tmp_path):
    interrupted_after(2, document, tmp_path)
    for damage in (b"", b"not a database", (tmp_path / FILE).read_bytes()[:3000]):
        (tmp_path / FILE).write_bytes(damage)
        with pytest.raises(NasMetaError):
            resume(tmp_path, inline=True)


@pytest.mark.parametrize("kilobytes", marked([60, 150], []))
def test_a_disk_without_room_is_a_sentence_and_the_search_goes_on_later(kilobytes, document, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    command = [*PROGRAM, "search", "config.yaml", "--run-dir", "run", "--inline"]

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=little_room)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("nas-meta: ")
    before = load_run(tmp_path / "run").trials
    run = resume(tmp_path / "run", inline=True)
    assert len(run.trials) == 10 and {t.status for t in run.trials} == {"completed"}
    kept = [t for t in before if t.status == "completed"]
    assert run.trials[: len(kept)] == kept


def test_what_is_said_with_the_strategy_stands_beside_the_trial(tmp_path, document):
    search(document | {"budget": {"trials": 2}, "strategy": {"name": "random"}}, tmp_path, inline=True)
    journal = Journal.open(tmp_path)
    assert journal.ask_tell_events() == [
        AskTellEvent("asked", 1),
        AskTellEvent("told", 1),
        AskTellEvent("asked", 2),
        AskTellEvent("told", 2),
    ]


@pytest.mark.slow
def test_a_search_without_ways_takes_what_the_classes_allow_and_resumes_with_it(small_config, tmp_path):
    del small_config["tasks"]["ways"]
    run = search(small_config, tmp_path / "run", inline=True)
    assert run.config.sections.tasks.ways == 3
    small_config["budget"]["trials"] = 7
    assert search(small_config, tmp_path / "run", inline=True, resume=True).count == 7
    small_config["tasks"]["ways"] = 2
    with pytest.raises(ConfigError, match=r"tasks\.ways is 2, but the run began with 3"):
        search(small_config, tmp_path / "run", inline=True, resume=True)
