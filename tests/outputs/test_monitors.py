"""Watching a search: logs, hooks, and what happens when one of them breaks."""

import logging
import sys

import pytest
from command_line import nas_meta

from nas_meta import load_run, resume, search
from nas_meta.core.signals import Interrupted
from nas_meta.execution.captured_output import MAX_CHARACTERS, CapturedOutput
from nas_meta.journal.status import read_status
from nas_meta.outputs.monitors import logs
from nas_meta.outputs.monitors.logs import log_path, read_log

TALKATIVE = '''
import logging, os, signal, sys, time, warnings
from pathlib import Path
from transformers import BertConfig, BertModel
from nas_meta import SearchSpace

class Talkative(SearchSpace):
    """Says what it does, and ends as its choice says."""
    tokenizer = "{model}"
    def choices(self):
        return {{"kind": {kinds}}}
    def build(self, architecture):
        kind = architecture["kind"]
        print("built for", kind)
        print("aside", file=sys.stderr)
        warnings.warn(f"a warning about {{kind}}")
        logging.getLogger("space").warning("logged about %s", kind)
        if kind == "fails":
            raise ZeroDivisionError("too dark")
        if kind == "dies" and not Path("{folder}", "died").exists():
            Path("{folder}", "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "floods":
            for _ in range(40):
                print("x" * 99_999)
        return BertModel(BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                    intermediate_size=16))
'''


@pytest.fixture
def talkative(small_config, tmp_path):
    """Makes a config whose trials are of these kinds, each once, in this order."""

    def make(*kinds):
        plugin = tmp_path / "talkative.py"
        model = small_config["space"]["model"]
        plugin.write_text(TALKATIVE.format(model=model, kinds=list(kinds), folder=tmp_path))
        return small_config | {
            "space": {"name": f"{plugin}:Talkative"},
            "strategy": {"name": "grid"},
            "evaluation": {
                "episodes": 5, "test_episodes": 5, "test_best": 1, "interim_every": 2, "interim_episodes": 5,
                "check_models": False,  # the check would be the first to build what dies once
            },
            "budget": {"trials": len(kinds)},
        }  # fmt: skip

    return make


def log_of(run, number):
    return "".join(read_log(run, number))


@pytest.mark.parametrize("inline", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["inline", "ray"])
def test_a_trial_has_a_log_of_what_it_did_and_said(inline, talkative, tmp_path, capsys):
    kinds = ["fine", "fails"] if inline else ["fine", "fails", "dies"]
    run = search(talkative(*kinds), tmp_path / "run", inline=inline)
    fine, fails, *dies = (t for kind in kinds for t in run.trials if t.architecture["kind"] == kind)
    text = log_of(run, fine.id)
    begin, *_, end = text.splitlines()
    assert f"trial {fine.id} starts: 4 steps, seed 3" in begin
    assert f"completed after 4 steps, accuracy {fine.metrics['accuracy']:.4f}" in end
    warned = () if inline else ("UserWarning: a warning about fine",)  # pytest keeps those of its own process
    for said in ("built for fine\n", "aside\n", "logged about fine", "on worker ", *warned):
        assert text.count(said) == 1, (said, text)
    steps = [line for line in text.splitlines() if "  step " in line]
    assert [line.split("step ")[1].split()[0] for line in steps] == ["1", "2", "3", "4"]
    assert all("loss " in line for line in steps) and "accuracy " in steps[1] and "accuracy " not in steps[0]
    text = log_of(run, fails.id)
    assert text.count("Traceback (most recent call last)") == 1 and "in build" in text and "built for fails\n" in text
    assert text.endswith("failed after 0 steps: ZeroDivisionError: too dark\n")
    for trial in dies:
        # Why its worker died stays above what the second one says.
        first, second = log_of(run, trial.id).split("\n\n")
        assert "will be run again: the worker died" in first and "completed" not in first
        assert (
            "built for dies" in second
            and f"completed after 4 steps, accuracy {trial.metrics['accuracy']:.4f}" in second
        )
    if inline:
        shown = capsys.readouterr()
        assert "built for fails\n" in shown.out and "aside\n" in shown.err  # as a person at the terminal expects


def test_a_trial_that_prints_without_end_has_a_log_that_ends(talkative, tmp_path):
    run = search(talkative("floods"), tmp_path / "run", inline=True)
    text = log_of(run, 1)
    assert MAX_CHARACTERS < len(text) < MAX_CHARACTERS + 3000 and f"more than {MAX_CHARACTERS:,} characters" in text
    assert "step 4" in text and "completed after 4 steps" in text


def test_a_log_of_endless_steps_keeps_its_end(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        logs._OpenLog, "__init__", lambda self, file: vars(self).update(file=file, remaining=300, worker="")
    )
    small_config["learner"]["steps"] = 12
    run = search(small_config | {"budget": {"trials": 1}}, tmp_path / "run", inline=True)
    text = log_of(run, 1)
    assert "step 2" in text and "step 12" not in text and "everything up to the last line is omitted" in text
    assert "completed after 12 steps" in text


def test_logs_are_read_by_the_command(talkative, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # so that the path of the run is on one line
    run = search(talkative("fine", "fails"), tmp_path / "run", inline=True).directory
    failed = next(t.id for t in load_run(run).trials if t.status == "failed")
    printed = nas_meta("logs", run, failed, "--follow").stdout  # it has ended: nothing to wait for
    assert printed == log_path(run, failed).read_text()
    assert f"why nas-meta logs {run} {failed}" in " ".join(nas_meta("status", run).stdout.split())
    for number, sentence in (
        ("9", "has no trial 9"),
        ("x", "'x' is not a trial; expected the ID of a trial, or supernet"),
    ):
        assert sentence in nas_meta("logs", run, number, check=1).stderr
    assert "has no log of the training of the supernet" in nas_meta("logs", run, "supernet", check=1).stderr
    log_path(run, failed).write_text("\x1b]0;title\x07 seen\n")
    assert nas_meta("logs", run, failed).stdout == r"\x1b]0;title\x07 seen" + "\n"
    log_path(run, failed).unlink()
    assert f"has no log of trial {failed}" in nas_meta("logs", run, failed, check=1).stderr


def test_a_log_is_followed_to_its_end(small_config, tmp_path):
    """Read while the search writes it: everything comes, once."""
    small_config["budget"] = {"trials": 1}
    followed = []

    def watch(status):
        if status.phase == "searching" and status.trials and status.steps.get(1) == 1 and not followed:
            reader = read_log(load_run(tmp_path / "run"), 1, follow=True)
            followed.append(reader)
            assert next(reader).endswith("\n")
            assert status.trials[0].status == "running"

    run = search(small_config, tmp_path / "run", inline=True, watch=watch)
    rest = "".join(followed[0])
    assert "step 4" in rest and "completed after 4 steps" in rest and "starts" not in rest
    assert log_of(run, 1).endswith(rest)


def test_the_supernet_has_a_log(small_config, tmp_path):
    small_config["strategy"] = {"name": "supernet", "steps": 2, "judged": 4, "texts": 4}
    small_config["budget"] = {"trials": 1}
    run = search(small_config, tmp_path / "run", inline=True)
    text = nas_meta("logs", run.directory, "supernet", "--follow").stdout
    assert (
        "step 1  meta-train/" in text
        and "step 2  meta-train/" in text
        and text.endswith("training of the supernet completed\n")
    )


def test_a_resumed_trial_goes_on_in_its_log(small_config, tmp_path):
    def interrupt(status):
        if status.steps.get(1) == 2:
            raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        search(small_config | {"budget": {"trials": 1}}, tmp_path / "run", inline=True, watch=interrupt)
    resume(tmp_path / "run", inline=True)
    first, second = log_of(load_run(tmp_path / "run"), 1).split("\n\n")
    assert "stopped after 2 steps: the search was interrupted" in first and "completed after 4 steps" in second


def test_a_link_in_the_place_of_a_log_is_not_written_through(small_config, tmp_path):
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "run" / "logs" / "trial-0002.log"
    elsewhere.write_text("mine\n")

    def watch(status):  # one that is there from the start is refused
        if link.parent.is_dir() and not link.is_symlink():
            link.symlink_to(elsewhere)

    run = search(small_config | {"budget": {"trials": 2}}, tmp_path / "run", inline=True, watch=watch)
    assert elsewhere.read_text() == "mine\n" and len(run.trials) == 2
    (trouble,) = read_status(run).troubles
    assert "trial-0002.log is a link" in trouble and "the search continues without it" in trouble


def test_logging_set_up_before_is_seen_and_left_as_it_was():
    stream = CapturedOutput(pass_through=False)
    root = logging.getLogger()
    before, outer = list(root.handlers), (sys.stdout, sys.stderr)
    with stream:
        with stream:
            logging.getLogger("a").error("told")
        print("still")
    assert (sys.stdout, sys.stderr) == outer and root.handlers == before
    print("not any more")
    assert stream.drain() == "ERROR a: told\nstill\n" and stream.drain() == ""


def test_a_monitor_that_breaks_ends_no_search(small_config, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file in its place")
    run = search(small_config | {"budget": {"trials": 2}}, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 2
    (trouble,) = read_status(run).troubles
    assert trouble.startswith("TensorBoard: ") and trouble.endswith("; the search continues without it")
    assert [r.getMessage() for r in caplog.records if r.name == "nas_meta"] == [trouble]
    assert "completed" in log_of(run, 2)
