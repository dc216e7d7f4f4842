"""Searches that stop trials: what a stopped trial keeps, what is shown of it, and what interrupts and deaths change."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest

from nas_meta import load_run, resume, search
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.core import plugins
from nas_meta.core.objectives import signed_values
from nas_meta.core.signals import Interrupted
from nas_meta.evaluation.trial import result_of
from nas_meta.outputs.report.formatting import trial_line
from nas_meta.outputs.report.terminal import console, result_table, trials_table
from nas_meta.space.architecture import Architecture
from nas_meta.strategy.stopping.rule import RungReport


def evaluation_of(config, **rungs):
    resolved = resolve(config)
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, 1)
    return evaluation.with_rungs(**rungs) if rungs else evaluation


def reports_of(trial):
    """What a trial reports at rungs, and its result."""
    rungs = []
    try:
        while True:
            progress = next(trial)
            if progress.pauses:
                rungs.append(progress)
    except StopIteration as end:
        return rungs, end.value


def test_a_rung_tells_what_stands_there_and_changes_nothing(small_config):
    small_config["learner"]["training"] = {"dropout": 0.1}
    plain, judged = evaluation_of(small_config), evaluation_of(small_config, rungs=(1, 2, 4), episodes=7)
    architecture = plain.space.sample(np.random.default_rng(1))
    rungs, result = reports_of(judged.trial(architecture, 3))
    alone = result_of(plain.trial(architecture, 3))
    # The end is no rung; the seven episodes are the first of the twenty.
    assert [r.step for r in rungs] == [1, 2] and all(r.scores.shape == (7,) for r in rungs)
    assert result.metrics["accuracy"] == alone.metrics["accuracy"]
    assert set(rungs[0].metrics) == set(alone.metrics)
    assert rungs[0].metrics["flops"] == alone.metrics["flops"]
    assert rungs[0].values["accuracy"] == rungs[0].metrics["accuracy"] == rungs[0].scores.mean()
    small_config["learner"]["steps"] = 2
    shorter = evaluation_of(small_config)
    encoder = shorter.restored(architecture, bytes(result_of(shorter.trial(architecture, 3, 0.0)).weights))
    np.testing.assert_array_equal(rungs[1].scores, shorter.accuracies(encoder, "meta-validation", 20)[:7])


STRATEGY = """
import json
from nas_meta.core import plugins
class Recorder(plugins.load("strategies", "random")):
    def tell(self, outcome):
        with open({file!r}, "a") as out:
            row = [outcome.architecture.id, outcome.status, outcome.values, dict(outcome.metrics)]
            out.write(json.dumps(row) + "\\n")
        super().tell(outcome)
"""


@pytest.fixture(scope="module")
def inline(tiny_model, labelled_texts, tmp_path_factory):
    """A search for accuracy and few FLOPs with rungs at steps 2 and 4 of 6, and what its strategy was told."""
    folder = tmp_path_factory.mktemp("stopping")
    (folder / "recorder.py").write_text(STRATEGY.format(file=str(folder / "told.jsonl")))
    config = {
        "space": {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0, 0.5], "ffn": [1.0, 0.5]},
        "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 3, "shots": 1, "queries": 3},
        "learner": {"name": "protonet", "head": "none", "steps": 6, "lr": 1e-3},
        "strategy": {"name": f"{folder / 'recorder.py'}:Recorder"},
        "evaluation": {"episodes": 20, "test_episodes": 20, "compare": False},
        "stopping": {"name": "asha", "eta": 2, "rungs": [2, 4], "episodes": 20},
        "budget": {"trials": 7},
        "latency": {"seconds": 0.02},
        "seed": 3,
    }
    run = search(config, folder / "run", inline=True)
    return run, [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_stopped_trials_keep_what_stood_at_their_last_rung(inline):
    run, told = inline
    last = {report.trial: (report, went_on) for report, went_on in run.rung_reports}
    stopped = [t for t in run.trials if t.status == "stopped"]
    assert len(stopped) >= 2 and {t.status for t in run.trials} == {"stopped", "completed"}
    for trial in run.trials:
        report, went_on = last[trial.id]
        assert went_on == (trial.status == "completed") and trial.error is None
        assert trial.fidelity == (6 if went_on else report.step)
        if not went_on:
            assert signed_values(trial.metrics, run.objectives) == report.values
            assert trial.metrics["accuracy"] == pytest.approx(report.scores.mean())
            assert trial.metrics["params"] > 0
    values = [list(signed_values(t.metrics, run.objectives)) for t in run.trials]
    assert told == [[t.architecture_id, t.status, v, t.metrics] for t, v in zip(run.trials, values, strict=True)]
    assert {run.best.id, *(t.id for t in run.pareto)}.isdisjoint(t.id for t in stopped)
    assert not {int(i) for i in run.report["trials"]} & {t.id for t in stopped}


@pytest.mark.slow
def test_the_steps_that_were_saved_are_told(inline):
    run, _ = inline
    taken = sum(t.fidelity for t in run.trials)
    assert (run.steps.taken, run.steps.planned) == (taken, 7 * 6)
    out = console()
    with out.capture() as capture:
        out.print(result_table(run))
        out.print(trials_table(run.trials))
    shown = capture.get()
    assert f"{taken} meta-training steps of 42: {1 - taken / 42:.0%} saved by stopping early" in shown
    assert "stopped at 2" in shown
    trial = next(t for t in run.trials if t.status == "stopped")
    assert f"trial {trial.id}: stopped at step {trial.fidelity}: {100 * trial.metrics['accuracy']:.1f}" in trial_line(
        trial
    )
    assert run.config.document["stopping"]["rungs"] == [2, 4]


def test_tensorboard_shows_rungs_and_no_failure(inline):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    run, _ = inline
    trial = next(t for t in run.trials if t.status == "stopped")
    (folder,) = (run.directory / "tensorboard").glob(f"trial-{trial.id:04d}-*")
    events = EventAccumulator(str(folder)).Reload()
    reports = [report for report, _ in run.rung_reports if report.trial == trial.id]
    accuracy = events.Scalars("meta-validation/accuracy")
    assert [(e.step, pytest.approx(e.value)) for e in accuracy] == [(r.step, r.values[0]) for r in reports]
    assert events.Scalars("trial/flops")[0].value == trial.metrics["flops"]
    contents = events.summary_metadata["_hparams_/session_end_info"].plugin_data.content
    end = plugin_data_pb2.HParamsPluginData.FromString(contents).session_end_info
    assert end.status == api_pb2.STATUS_SUCCESS


@pytest.mark.slow
def test_a_search_on_ray_decides_as_a_replay_of_fully_trained_trials(small_config, tmp_path):
    """So that one set of trained trials tells what every rule would have done."""
    small_config |= {
        "learner": {"name": "protonet", "steps": 6, "lr": 1e-3},
        "strategy": {"name": "random"},
        "stopping": {"name": "asha", "eta": 2, "rungs": [2, 4], "episodes": 20},
        "resources": {"workers": 2, "cpus_per_trial": 1},
    }
    run = search(small_config, tmp_path / "run")
    assert {t.status for t in run.trials} == {"stopped", "completed"}
    evaluation = evaluation_of(small_config, rungs=(2, 4), episodes=20)
    curves = {}
    for trial in run.trials:
        rungs, _ = reports_of(evaluation.trial(Architecture(trial.architecture), trial.seed))
        for progress in rungs:
            values = signed_values(progress.metrics, run.objectives)
            curves[trial.id, progress.step] = RungReport(trial.id, progress.step, values, progress.scores)
    asha = plugins.load("stopping", "asha")
    replayed = asha(asha.Options(eta=2), run.objectives)
    for report, went_on in run.rung_reports:
        there = curves[report.trial, report.step]
        assert there.values == pytest.approx(report.values, abs=0.02)
        assert replayed.decide(there) == went_on


@pytest.mark.slow
def test_a_worker_that_dies_after_its_trial_was_stopped_changes_nothing(small_config, tmp_path, monkeypatch):
    from nas_meta.execution import inline_engine

    begun = []

    class Dying(inline_engine.InlineEngine):
        def submit(self, key, method, *arguments):
            begun.append((method, key))
            super().submit(key, method, *arguments)

        def events(self):
            for event in super().events():
                closed = event.done and event.value is None and event.error is None
                yield dataclasses.replace(event, died=True, error="the worker died") if closed else event

    monkeypatch.setattr(inline_engine, "InlineEngine", Dying)
    small_config |= {"stopping": {"name": "asha", "rungs": [1, 2]}, "strategy": {"name": "random"}}
    run = search(small_config, tmp_path / "run", inline=True)
    assert {t.status for t in run.trials} == {"completed", "stopped"}
    assert [key for method, key in begun if method == "trial"] == [1, 2, 3, 4, 5, 6]


def test_a_trial_that_fails_after_a_rung_fails_and_the_search_goes_on(small_config, tmp_path, monkeypatch):
    from nas_meta.learners.protonet import ProtoNet

    meta_train = ProtoNet.meta_train
    begun = []

    def slips(self, encoder, pool, draw):
        begun.append(encoder)
        for step in meta_train(self, encoder, pool, draw):
            yield step
            if len(begun) == 1 and step.number == 3:
                raise ValueError("slipped")

    monkeypatch.setattr(ProtoNet, "meta_train", slips)
    small_config |= {"stopping": {"name": "racing", "rungs": [2]}, "strategy": {"name": "random"}}
    small_config["budget"]["trials"] = 3
    small_config["evaluation"]["check_models"] = False  # the check would be the first to slip
    run = search(small_config, tmp_path / "run", inline=True)
    first, *others = run.trials
    assert (first.status, first.error, first.fidelity, first.metrics) == ("failed", "ValueError: slipped", 3, {})
    assert len(others) == 2 and "completed" in {t.status for t in others}


def test_an_interrupt_at_a_rung_keeps_what_had_finished(small_config, tmp_path, monkeypatch):
    asha, seen = plugins.load("stopping", "asha"), []
    decide = asha.should_continue

    def interrupted(self, report, others):
        seen.append(report)
        if len(others) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return decide(self, report, others)

    monkeypatch.setattr(asha, "should_continue", interrupted)
    small_config |= {"stopping": {"name": "asha", "rungs": [2]}, "strategy": {"name": "random"}}
    with pytest.raises(Interrupted):
        search(small_config, tmp_path / "run", inline=True)
    run = load_run(tmp_path / "run")
    assert len(seen) == len(run.rung_reports) == len(run.trials) == 3
    assert {t.status for t in run.trials[:2]} <= {"completed", "stopped"}
    assert run.trials[2].status == "stopped" and run.trials[2].fidelity == 2


@pytest.mark.slow
def test_a_trial_that_is_run_again_reports_again(small_config, tmp_path, monkeypatch):
    """Its reports of the first time are not those of another trial: they would judge it and the others twice."""
    asha = plugins.load("stopping", "asha")
    decide, recalled = asha.should_continue, []

    def interrupted(self, report, others):
        if report.trial == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return True

    monkeypatch.setattr(asha, "should_continue", interrupted)
    small_config |= {"stopping": {"name": "asha", "rungs": [2]}, "strategy": {"name": "random"}}
    small_config["resources"] |= {"grace_seconds": 0}
    with pytest.raises(Interrupted):
        search(small_config, tmp_path / "run", inline=True)
    before = load_run(tmp_path / "run")
    assert [(t.status, t.fidelity) for t in before.trials] == [("completed", 4), ("stopped", 2)]
    monkeypatch.setattr(asha, "should_continue", decide)
    monkeypatch.setattr(asha, "recall", lambda self, report, continued: recalled.append(report.trial))
    run = resume(tmp_path / "run", inline=True)
    assert recalled == [1]
    assert sorted(report.trial for report, _ in run.rung_reports) == [1, 2, 3, 4, 5, 6]
