"""Final training: the best trials are trained further, and whatever is better on meta-validation is used."""

import dataclasses
import json

import numpy as np
import pytest
from command_line import nas_meta
from dying_engine import DyingEngine
from shown import shown

from nas_meta import Architecture, NasMetaError, load_run, resume, search
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.teacher import Teacher
from nas_meta.controller import phases
from nas_meta.errors import ConfigError
from nas_meta.evaluation.final_training import FinalTraining
from nas_meta.evaluation.trial import result_of
from nas_meta.journal.database import Journal
from nas_meta.journal.weights import final_weights_path, weights_path
from nas_meta.learners.training.distillation import Distillation
from nas_meta.outputs.export.folder import export
from nas_meta.testing.device_rule import DeviceRule

WHOLE = "the whole model trained alike"


@pytest.fixture
def document(small_config):
    """A search whose trials take one step at a rate that changes nothing, so that 30 real steps make them better."""
    small_config["learner"] |= {"steps": 1, "lr": 1e-9}
    return small_config | {
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 40, "test_episodes": 8, "keep": 2, "check_models": False, "compare": False},
        "final_training": {"steps": 30, "lr": 1e-2},
        "budget": {"trials": 3},
        "seed": 1,
    }  # fmt: skip


def evaluation_of(run):
    """The evaluation of a run's trials."""
    return make_evaluation(run.config, *load_problem(run.config), 1)


def accuracy_with(run, trial, weights):
    """Meta-validation accuracy of a trial with weights that are given."""
    evaluation = evaluation_of(run)
    encoder = evaluation.restored(Architecture(trial.architecture), weights)
    return evaluation.accuracies(encoder, "meta-validation", 40).mean()


def test_the_best_trial_is_used_with_its_better_weights(document, tmp_path):
    run = search(document, tmp_path / "run", inline=True)
    best, [(trained, row)] = run.best, run.final_training.items()
    assert trained == best.id and row["kept"] and row["metrics"]["accuracy"] > best.metrics["accuracy"]
    assert run.weights_of(best) == final_weights_path(run.directory, best.id).read_bytes()
    assert accuracy_with(run, best, run.weights_of(best)) == pytest.approx(row["metrics"]["accuracy"])
    # The trial stays what it was, so that it remains comparable with the others.
    before = weights_path(run.directory, best.id).read_bytes()
    assert accuracy_with(run, best, before) == pytest.approx(best.metrics["accuracy"])

    [sentence] = run.final_sentences.values()
    assert sentence.startswith(f"trial {best.id}, trained for 30 more steps: ")
    assert sentence.endswith("; it has the new weights")
    assert sentence in shown(run) and f"Final training: {sentence}." in (run.directory / "report.html").read_text()
    assert sentence in " ".join(nas_meta("trial", run.directory, best.id).stdout.split())
    assert json.loads(nas_meta("best", run.directory, "--json").stdout)["final_training"] == row
    card = (export(run, tmp_path / "model") / "README.md").read_text()
    assert "for 1 step, then for 30 more, on episodes" in card
    assert "| meta-validation accuracy after the final training | " in card


def test_weights_that_are_no_better_are_not_used(document, tmp_path):
    document["final_training"] = {"steps": 1, "lr": 1e-12, "trials": 2}
    run = search(document, tmp_path / "run", inline=True)
    assert len(run.final_training) == 2 and not any(row["kept"] for row in run.final_training.values())
    assert not list((tmp_path / "run" / "weights").glob("*.final.*"))
    assert run.final_sentences[run.best.id].endswith("that is no better, so it has the weights of the search")


def test_what_the_winner_is_compared_with_is_trained_for_as_long(document, tmp_path):
    document["evaluation"] |= {"compare": True, "test_best": 1}
    run = search(document, tmp_path / "run", inline=True)
    [row] = [r for r in Journal.open(tmp_path / "run").get("comparisons") if r["name"] == WHOLE]
    assert row["final"] == run.final_training[run.best.id]["options"]
    short = search(document | {"final_training": None}, tmp_path / "short", inline=True)
    assert short.report["comparisons"][WHOLE] != run.report["comparisons"][WHOLE]


def test_a_finished_search_can_be_given_a_final_training(document, tmp_path):
    whole = search(document, tmp_path / "whole", inline=True)
    search(document | {"final_training": None}, tmp_path / "run", inline=True)
    later = resume(tmp_path / "run", ["final_training.steps=30", "final_training.lr=1e-2"], inline=True)
    assert later.final_training == whole.final_training
    assert later.weights_of(later.best) == whole.weights_of(whole.best)

    without = resume(tmp_path / "run", ["final_training=null"], inline=True)
    assert not without.final_training and not without.final_sentences
    assert without.weights_of(without.best) == weights_path(tmp_path / "run", without.best.id).read_bytes()


def test_a_resumed_search_trains_only_what_is_missing(document, monkeypatch, tmp_path):
    document["final_training"]["trials"] = 2
    first = search(document, tmp_path / "run", inline=True)
    final_weights_path(tmp_path / "run", first.best.id).unlink()
    trained = []

    class Counting(DyingEngine):
        def submit(self, key, method, *arguments):
            trained.extend([key] if method == "train_further" else [])
            super().submit(key, method, *arguments)

    monkeypatch.setattr(phases, "make_engine", lambda payload, *_: Counting(payload, "train_further", 1))
    again = resume(tmp_path / "run", inline=True)
    assert trained == [first.best.id] * 2  # the first worker died
    assert again.final_training == first.final_training


def test_a_final_training_that_fails_leaves_the_weights_of_the_search(document, monkeypatch, tmp_path):
    monkeypatch.setattr(phases, "make_engine", lambda payload, *_: DyingEngine(payload, "train_further", 99))
    run = search(document, tmp_path / "run", inline=True)
    sentence = f"trial {run.best.id} could not be trained further: the worker died: killed"
    assert run.final_sentences == {run.best.id: sentence}
    assert run.report["trials"] and run.weights_of(run.best)


def test_a_teacher_that_fails_leaves_the_weights_of_the_search(document, monkeypatch, tmp_path):
    """Also where an earlier final training had better ones, which belong to other options."""
    first = search(document, tmp_path / "run", inline=True)
    assert final_weights_path(first.directory, first.best.id).exists()

    def failing(*_):
        raise ConfigError("the loss is not finite")

    monkeypatch.setattr(Teacher, "embeddings", failing)
    again = resume(first.directory, ["final_training.distill={trained: true, weight: 1.0}"], inline=True)
    sentence = f"trial {again.best.id} could not be trained further: the loss is not finite"
    assert again.final_sentences == {again.best.id: sentence}
    assert not final_weights_path(first.directory, first.best.id).exists()
    assert again.weights_of(again.best) == weights_path(again.directory, again.best.id).read_bytes()


def test_the_teacher_teaches_in_the_final_training_alone(document, tmp_path):
    document["final_training"]["distill"] = {"trained": True, "weight": 1e3}
    run = search(document, tmp_path / "run", inline=True)
    [row] = run.final_training.values()
    assert row["options"]["distill"] == {"weight": 1e3, "model": None, "trained": True}
    document["final_training"] |= {"distill": 0}
    alone = search(document, tmp_path / "alone", inline=True)
    assert [t.metrics["accuracy"] for t in alone.trials] == [t.metrics["accuracy"] for t in run.trials]
    assert alone.final_training[run.best.id]["metrics"] != row["metrics"]


def test_the_learner_of_the_trial_changes_only_where_the_final_training_says_so(protonet):
    final = FinalTraining(30, distill=Distillation(weight=2.0))
    learner = final.learner(protonet)
    changed = {k: v for k, v in learner.options.model_dump().items() if v != protonet.options.model_dump()[k]}
    assert set(changed) == {"steps", "training"} and learner.options.training.distill.weight == 2.0
    assert dataclasses.replace(final, lr=0.5).learner(protonet).options.lr == 0.5


def test_its_tensors_would_be_on_one_device_of_a_gpu(document, tmp_path):
    document["learner"]["head"] = "auto"
    run = search(document | {"final_training": None}, tmp_path / "run", inline=True)
    evaluation, weights = evaluation_of(run), run.weights_of(run.best)
    teacher = np.ones((len(evaluation.tasks["meta-train"]), 5), np.float32)
    final = FinalTraining(2, distill=Distillation(weight=1.0), teacher=teacher)
    with DeviceRule() as rule:
        result_of(evaluation.train_further(Architecture(run.best.architecture), weights, 1, final))
    assert rule.violations == []


@pytest.fixture
def protonet():
    from nas_meta.learners.protonet import ProtoNet

    return ProtoNet(ProtoNet.Options(steps=7))


@pytest.mark.parametrize(
    "section, message",
    [
        ({"trails": 1}, "'final_training.trails' is not a known key; did you mean 'trials'?"),
        ({"trials": 3}, "final_training.trials is 3, but evaluation.keep is 2"),
        ({"steps": 0}, "final_training.steps is 0"),
        ({"distill": {"model": "no-such-folder/model"}}, "final_training.distill.model"),
    ],
)
def test_mistakes_are_reported_before_the_first_trial(document, tmp_path, section, message):
    with pytest.raises(NasMetaError) as raised:
        search(document | {"final_training": section}, tmp_path / "run", inline=True)
    assert message in str(raised.value) and not Journal.exists(tmp_path / "run")


def test_distillation_needs_a_full_model_before_the_first_trial(document, tmp_path):
    document |= {"space": {"name": "encoder"}, "final_training": {"distill": 1.0}}
    with pytest.raises(NasMetaError, match=r"final_training\.distill needs a full model to learn from"):
        search(document, tmp_path / "run", inline=True)


def test_a_damaged_result_is_refused(document, tmp_path):
    from nas_meta.errors import RunError

    search(document, tmp_path / "run", inline=True)
    journal = Journal.append(tmp_path / "run")
    journal.set("final_training", [{"trial": "one"}])
    journal.close()
    with pytest.raises(RunError, match="'final_training' is not of the type"):
        _ = load_run(tmp_path / "run").final_training
