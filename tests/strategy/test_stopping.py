"""Trials that are not worth training to their end: the rules by hand-computed cases, and searches that use them."""

import dataclasses
import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from installed import shipped

from nas_meta import Objective, load_run, resume, search
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.core import plugins
from nas_meta.core.objectives import crowding_distances, signed_values
from nas_meta.core.signals import Interrupted
from nas_meta.errors import ConfigError, NasMetaError, PluginError
from nas_meta.evaluation.trial import result_of
from nas_meta.outputs.report.formatting import trial_line
from nas_meta.outputs.report.terminal import console, result_table, trials_table
from nas_meta.space.architecture import Architecture
from nas_meta.strategy.stopping.pareto_rank import rank_of
from nas_meta.strategy.stopping.racing import p_value
from nas_meta.strategy.stopping.rule import RungReport

ACCURACY, FLOPS = Objective("accuracy"), Objective("flops", "minimize")


def rule(name, objectives=(ACCURACY,), **options):
    plugin = plugins.load("stopping", name)
    return plugin(plugin.Options(**options), objectives)


def arrive(rule, *values, step=10, scores=None):
    """Trials with these values reach a rung one after the other; returns who goes on."""
    first = 1 + max((trial for rung in rule._reports.values() for trial in rung), default=0)
    decisions = []
    for i, value in enumerate(values):
        value = value if isinstance(value, tuple) else (value,)
        own = np.full(4, value[0]) if scores is None else np.array(scores[i], dtype=float)
        decisions.append(rule.decide(RungReport(first + i, step, value, own)))
    return decisions


def test_asha_lets_the_best_share_go_on_in_the_order_of_arrival():
    # Of 1, 2, 3, 4, 5, 6 that arrived, the best 1, 1, 1, 2, 2, 3 go on with η = 2.
    assert arrive(rule("asha", eta=2), 0.5, 0.4, 0.6, 0.45, 0.55, 0.45) == [True, False, True, False, True, False]
    # η = 3: 1, 1, 1, 1, 1, 2.
    assert arrive(rule("asha", eta=3), 0.5, 0.4, 0.6, 0.5, 0.5, 0.55) == [True, False, True, False, False, True]


def test_rungs_are_judged_apart():
    asha = rule("asha", eta=2)
    assert arrive(asha, 0.9, 0.1) == [True, False]
    assert asha.decide(RungReport(1, 20, (0.2,), np.zeros(4)))
    assert asha.stopped == {2}


def test_median_stops_what_is_worse_than_more_than_half_of_the_others():
    # 0.5 is worse than 0.6 and 0.7, but only three others count as a median.
    assert arrive(rule("median"), 0.6, 0.7, 0.5, 0.6) == [True] * 4
    # Others 0.6 0.7 0.5 0.6: 0.55 has three before it, 0.6 one.
    assert arrive(rule("median"), 0.6, 0.7, 0.5, 0.6, 0.55, 0.6) == [True, True, True, True, False, True]
    assert arrive(rule("median", least=1), 0.6, 0.5) == [True, False]


def test_what_failed_is_no_measure():
    median = rule("median", least=2)
    assert arrive(median, 0.9, 0.9, 0.5) == [True, True, False]
    for trial in (1, 2):
        median.forget(trial)
    assert arrive(median, 0.6, 0.7) == [True, True]


def test_places_by_front_then_by_room():
    # Two ends of the first front, a crowded and a roomy one between them, and one that (3, 3) dominates.
    values = np.array([(0, 10), (10, 0), (3, 3), (2, 7), (2, 2)])
    # Room of (3, 3): (10 - 2) / 10 + (7 - 0) / 10 = 1.5; of (2, 7): (3 - 0) / 10 + (10 - 3) / 10 = 1.
    np.testing.assert_allclose(crowding_distances(values[:4].astype(float)), [math.inf, math.inf, 1.5, 1.0])
    assert ranks(values) == [0, 0, 2, 3, 4]
    assert ranks(np.array([[3.0], [1.0], [3.0], [2.0]])) == [0, 3, 0, 2]


def ranks(values):
    reports = [RungReport(i, 1, tuple(row), np.zeros(2)) for i, row in enumerate(values)]
    return [rank_of(report, [r for r in reports if r is not report]) for report in reports]


def test_equal_candidates_have_equal_crowding_distances_in_every_order():
    # The gap of (2, 2) is that between (0, 4) and (4, 0), although it stands there twice.
    front = np.array([(0.0, 4.0), (2.0, 2.0), (2.0, 2.0), (4.0, 0.0), (4.0, 0.0)])
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        expected = np.array([math.inf, 2.0, 2.0, math.inf, math.inf])[order]
        np.testing.assert_allclose(crowding_distances(front[order]), expected)
    assert crowding_distances(np.array([[1.0, 1.0], [1.0, 1.0]])).tolist() == [0.0, 0.0]


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


def test_with_two_objectives_the_cheapest_and_the_most_accurate_stand_first():
    asha = rule("asha", (ACCURACY, FLOPS), eta=2)
    # The second is worse in both; the third is cheaper, the fourth more accurate than all.
    assert arrive(asha, (0.6, -10), (0.5, -12), (0.4, -5), (0.9, -20)) == [True, False, True, True]
    median = rule("median", (ACCURACY, FLOPS), least=1)
    assert arrive(median, (0.6, -10), (0.5, -12), (0.4, -5)) == [True, False, True]


def test_the_paired_t_test_against_closed_forms():
    # One degree of freedom is Cauchy's distribution: differences 1 and 3, t = 2, P = 1/2 - atan(2)/π.
    assert p_value(np.array([4.0, 4.0]), np.array([3.0, 1.0])) == pytest.approx(0.5 - math.atan(2) / math.pi)
    # Two: P = 1/2 - t / (2 √(2 + t²)). Differences 1, 2, 3: t = 2 / (1 / √3) = 2√3.
    t = 2 * math.sqrt(3)
    assert p_value(np.array([1.0, 2.0, 3.0]), np.zeros(3)) == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)))
    assert p_value(np.zeros(3), np.array([1.0, 2.0, 3.0])) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)))
    assert p_value(np.ones(3), np.zeros(3)) == 0 and p_value(np.ones(3), np.ones(3)) == 1


def test_racing_uses_that_episodes_are_the_same():
    hard_and_easy = np.array([0.2, 0.9, 0.4, 0.7, 0.1, 0.8])
    small = np.array([0.05, 0.04, 0.06, 0.05, 0.04, 0.06])
    # Always a little worse: stopped, though the scores overlap widely. The same mean gap with other episodes: not.
    assert arrive(rule("racing"), 0.52, 0.47, scores=[hard_and_easy, hard_and_easy - small]) == [True, False]
    assert arrive(rule("racing"), 0.52, 0.47, scores=[hard_and_easy, np.roll(hard_and_easy - small, 1)]) == [True, True]


def test_racing_compares_with_the_best_that_is_still_in_the_race():
    racing = rule("racing")
    best, middle, worst = ([x, x + 0.01, x, x + 0.01, x] for x in (0.7, 0.6, 0.5))
    assert arrive(racing, 0.7, 0.6, scores=[best, middle]) == [True, False]
    # The best is itself beaten at a later rung: its early lead is no measure any more.
    assert racing.decide(RungReport(3, 20, (0.8,), np.array(best) + 0.1))
    assert not racing.decide(RungReport(1, 20, (0.6,), np.array(middle)))
    assert arrive(racing, 0.5, 0.6, 0.5, scores=[worst, middle, worst]) == [True, True, False]


def test_racing_keeps_what_is_better_in_another_objective():
    racing = rule("racing", (FLOPS, ACCURACY))
    high, low = [0.8, 0.81, 0.8, 0.82], [0.4, 0.41, 0.4, 0.4]
    decisions = arrive(racing, (-10, 0.8), (-9, 0.4), (-10, 0.4), (-8, 0.4), scores=[high, low, low, low])
    assert decisions == [True, True, False, True]


@pytest.mark.parametrize("name", shipped("stopping", without=["none"]))
def test_a_rule_is_a_function_of_the_reports(name):
    rng = np.random.default_rng(0)
    reports = []
    for trial in range(1, 30):
        scores = rng.random(20) * 0.3 + rng.random()
        reports.append(RungReport(trial, 5, (scores.mean(), rng.integers(5)), scores))
    one, other = (rule(name, (ACCURACY, FLOPS)) for _ in range(2))
    decisions = [one.decide(r) for r in reports]
    assert [other.decide(r) for r in reports] == decisions
    assert 0 < sum(decisions) < len(decisions)


def test_default_rungs_follow_from_the_steps():
    def options(name="asha", **given):
        return plugins.options_of("stopping", name)(**given)

    assert options().resolved(60, 40).rungs == [4, 15]
    assert options("racing", eta=3).resolved(81, 40).rungs == [9, 27]
    assert options().resolved(2, 40).rungs == [1]
    assert options(rungs=[30, 15, 30], episodes=10).resolved(60, 40).model_dump() == {
        "rungs": [15, 30], "eta": 4.0, "episodes": 10,
    }  # fmt: skip
    for given, steps, words in (
        ({"rungs": [15, 60]}, 60, r"stopping.rungs has 60, but trials take 60 steps"),
        ({"rungs": [0]}, 60, r"stopping.rungs has 0"),
        ({}, 1, r"with learner.steps: 1 no trial can be stopped early"),
    ):
        with pytest.raises(ConfigError, match=words):
            options(**given).resolved(steps, 40)


def test_the_section_is_a_name_or_has_options():
    assert resolve({}).document["stopping"] == {"name": "none"}
    short = resolve({"stopping": "racing"})
    assert short.document["stopping"]["confidence"] == 0.95
    assert resolve(short.document).document["stopping"] == short.document["stopping"]
    for section, words in (
        ("ash", "stopping.name: 'ash' is not an installed stopping rule; did you mean 'asha'"),
        ({"name": "racing", "confidance": 0.9}, "stopping.confidance' is not a known key; did you mean 'confidence'"),
        ({"name": "asha", "confidence": 0.9}, "stopping.confidence' is not a known key"),
        ({"name": "asha", "eta": 1}, "stopping.eta is 1; expected greater than 1"),
        ({"name": "asha", "rungs": ["x"]}, "stopping.rungs.0 is 'x'; expected a valid integer"),
        (3, "'stopping' is 3; expected keys such as 'name:'"),
    ):
        with pytest.raises(ConfigError, match=words):
            resolve({"stopping": section})


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
        "learner": {"name": "protonet", "steps": 6, "lr": 1e-3},
        "strategy": {"name": f"{folder / 'recorder.py'}:Recorder"},
        "evaluation": {"episodes": 20, "test_episodes": 20},
        "stopping": {"name": "asha", "eta": 2, "rungs": [2, 4], "episodes": 20},
        "budget": {"trials": 7},
        "latency": {"seconds": 0.02},
        "seed": 3,
    }
    run = search(config, folder / "run", inline=True)
    return run, [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]


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
    replayed = rule("asha", run.objectives, eta=2)
    for report, went_on in run.rung_reports:
        there = curves[report.trial, report.step]
        assert there.values == pytest.approx(report.values, abs=0.02)
        assert replayed.decide(there) == went_on


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
