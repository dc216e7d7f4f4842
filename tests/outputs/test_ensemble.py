"""``nas-meta ensemble``: from a run to one classifier that averages its members, or to a sentence that says no."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from command_line import nas_meta as command

import nas_meta
from nas_meta.errors import ConfigError, RunError
from nas_meta.evaluation.ensemble import Queries
from nas_meta.journal.records import Trial
from nas_meta.journal.run import load_run
from nas_meta.journal.weights import weights_path
from nas_meta.outputs.ensemble import scoring
from nas_meta.outputs.ensemble.description import ENSEMBLE
from nas_meta.outputs.ensemble.folder import write_ensemble
from nas_meta.outputs.ensemble.judging import judge
from nas_meta.outputs.ensemble.scoring import Candidates, kept_trials, score
from nas_meta.outputs.export.exported_model import CONFIG


@pytest.fixture(scope="module")
def searched(tiny_model, labelled_texts, tmp_path_factory):
    """A function that searches with a learner and keeps all trials; 2-way episodes, so that exports are calibrated."""
    made = {}

    def search(learner, **changes):
        key = json.dumps([learner, changes])
        if key not in made:
            config = {
                "space": {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0, 0.5], "ffn": [1.0, 0.5]},
                "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 2, "shots": 1, "queries": 3},
                "learner": learner,
                "strategy": {"name": "random"},
                "evaluation": {"episodes": 30, "test_episodes": 2, "compare": False, "keep": 3},
                "latency": {"seconds": 0.02},
                "budget": {"trials": 3},
            }
            for section, values in changes.items():
                config[section] |= values
            made[key] = nas_meta.search(config, tmp_path_factory.mktemp("ensemble") / "run", inline=True)
        return made[key]

    return search


@pytest.fixture(scope="module")
def run(searched):
    return searched({"name": "protonet", "steps": 1, "head": "none"})


@pytest.fixture(scope="module")
def candidates(run):
    return score(run)


@pytest.fixture(scope="module")
def forced(run, candidates, tmp_path_factory):
    """An ensemble of the first two trials with weights 3 and 1."""
    judged = judge(candidates, 4, None, seed=0)
    chosen = replace(judged, members=[0, 1], weights=[3, 1])
    return write_ensemble(run, candidates, chosen, tmp_path_factory.mktemp("forced") / "model")


@pytest.fixture(scope="module")
def support(texts_by_class):
    return texts_by_class["class0"][:3] + texts_by_class["class1"][:2] + texts_by_class["class2"][:1], ["a"] * 3 + [
        "b"
    ] * 2 + ["c"]


@pytest.fixture(scope="module")
def queries(texts_by_class):
    return [text for name in ("class0", "class1", "class2") for text in texts_by_class[name][5:8]]


@pytest.mark.slow
def test_trials_are_scored_as_in_the_search(run, candidates):
    assert [trial.id for trial in candidates.trials] == [trial.id for trial in run.trials]
    for trial, *halves in zip(
        candidates.trials, candidates.selection.probabilities, candidates.judging.probabilities, strict=True
    ):
        right = [
            half.argmax(1) == part.targets
            for half, part in zip(halves, (candidates.selection, candidates.judging), strict=True)
        ]
        assert np.concatenate(right).mean() == pytest.approx(trial.metrics["accuracy"])
    assert candidates.selection.count == candidates.judging.count == 15
    assert all(latency > 0 for latency in candidates.latencies)


@pytest.mark.slow
def test_the_loaded_ensemble_predicts_the_weighted_average(forced, support, queries):
    ensemble = nas_meta.load_classifier(forced).fit(*support)
    description = json.loads((forced / ENSEMBLE).read_text())
    expected = np.zeros((len(queries), 3))
    for member, share in zip(description["members"], (0.75, 0.25), strict=True):
        single = nas_meta.load_classifier(forced / member["folder"])
        known = {int(ways): t for ways, t in member["temperatures"].items()}
        divisor = type(single.parts.calibration)({}, known).temperature(3)
        uncalibrated = np.log(single.fit(*support).predict_proba(queries)) * single.parts.calibration.temperature(3)
        powers = np.exp(uncalibrated / divisor)
        expected += share * powers / powers.sum(1, keepdims=True)
    probabilities = ensemble.predict_proba(queries)
    assert np.allclose(probabilities, expected, atol=1e-5)
    assert ensemble.predict(queries).tolist() == [["a", "b", "c"][i] for i in probabilities.argmax(1)]
    assert ensemble.score(queries, ["a"] * 3 + ["b"] * 3 + ["c"] * 3) == pytest.approx(
        np.mean(probabilities.argmax(1) == np.repeat([0, 1, 2], 3))
    )


def test_partial_fit_and_unlabelled_texts_work_as_for_one_model(forced, support, queries):
    texts, labels = support
    whole = nas_meta.load_classifier(forced).fit(texts, labels)
    steps = nas_meta.load_classifier(forced).fit(texts[:5], labels[:5]).partial_fit(texts[5:], labels[5:])
    assert np.allclose(steps.predict_proba(queries), whole.predict_proba(queries), atol=1e-5)
    refined = nas_meta.load_classifier(forced).fit(texts, labels, unlabelled=queries)
    assert not np.allclose(refined.predict_proba(queries), whole.predict_proba(queries))
    assert np.allclose(whole.predict_proba(queries, together=True).sum(1), 1)


def test_a_fitted_ensemble_is_saved_beside_its_members(forced, support, queries, tmp_path):
    fitted = nas_meta.load_classifier(forced).fit(*support)
    saved = nas_meta.load_classifier(fitted.save(tmp_path / "saved"))
    assert np.array_equal(saved.predict_proba(queries), fitted.predict_proba(queries))
    moved = shutil.copytree(forced, tmp_path / "moved")
    document = json.loads((moved / ENSEMBLE).read_text())
    document["members"][0]["weight"] += 1
    (moved / ENSEMBLE).write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="fitted with another model"):
        nas_meta.load_classifier(tmp_path / "saved", model=moved)


def test_an_ensemble_refuses_texts_of_no_class_where_the_support_set_is_large(forced, texts_by_class, support, queries):
    many = [t for name in ("class0", "class1") for t in texts_by_class[name][:12]], ["a"] * 12 + ["b"] * 12
    answers = nas_meta.load_classifier(forced).fit(*many, refuse=0.2).predict(queries).tolist()
    assert set(answers) <= {"a", "b", None}
    with pytest.raises(ConfigError, match=r"only 5 examples.*expected at least 19"):
        nas_meta.load_classifier(forced).fit(*support, refuse=0.05)


def test_learners_that_adapt_are_averaged_too(forced, support, queries, tmp_path):
    folder = shutil.copytree(forced, tmp_path / "model")
    for member in folder.glob("trial-*"):
        document = yaml.safe_load((member / CONFIG).read_text())
        learner = {"name": "finetune", "steps": 0, "adapt_steps": 2}
        (member / CONFIG).write_text(yaml.safe_dump(document | {"learner": learner}))
    fitted = nas_meta.load_classifier(folder).fit(support[0][:5], support[1][:5])
    assert np.allclose(fitted.predict_proba(queries).sum(1), 1)
    saved = nas_meta.load_classifier(fitted.save(tmp_path / "saved"))
    assert np.array_equal(saved.predict_proba(queries), fitted.predict_proba(queries))


@pytest.mark.slow
def test_runs_of_learners_that_adapt_are_scored_as_in_the_search(searched):
    run = searched({"name": "finetune", "steps": 0, "adapt_steps": 2}, budget={"trials": 2})
    scored = score(run)
    parts = scored.selection, scored.judging
    for i, trial in enumerate(scored.trials):
        right = np.concatenate([part.probabilities[i].argmax(1) == part.targets for part in parts])
        assert right.mean() == pytest.approx(trial.metrics["accuracy"])


@pytest.mark.slow
def test_full_way_runs_are_judged_on_other_draws_and_other_examples(searched):
    learner = {"name": "protonet", "steps": 0, "head": "none"}
    scored = score(searched(learner, evaluation={"protocol": "full-way"}, budget={"trials": 2}))
    assert scored.ways == scored.selection.probabilities.shape[2] > 2
    assert scored.selection.count == scored.judging.count == 5


def made_up(*right, latencies=(0.001, 0.002, 0.004)):
    """Candidates that are right with probability 0.9 on given shares of 200 episodes of four queries."""
    rng = np.random.default_rng(0)
    first = np.where(rng.uniform(size=(len(right), 800)) < np.array(right)[:, None], 0.9, 0.4)
    part = Queries(np.stack([first, 1 - first], axis=2), np.zeros(800, int), np.repeat(np.arange(200), 4))
    trials = [Trial(i + 20, {}, 0, 1, "completed", {"params": 1000}) for i in range(len(right))]
    return Candidates(trials, [1.0] * len(right), list(latencies[: len(right)]), part.at(np.arange(400)),
                      part.at(np.arange(400, 800)), ways=2)  # fmt: skip


def test_an_ensemble_that_is_better_is_stated_with_its_interval():
    judged = judge(made_up(0.7, 0.7, 0.7), 3, None, seed=0)
    single, ensemble, nearest = judged.rows
    assert judged.is_better and judged.verdict.startswith("the ensemble is better: trials 20, 21 and 22 together")
    assert ensemble.difference > ensemble.difference_interval > 0
    assert ensemble.latency == pytest.approx(0.007) and ensemble.params == 3000
    assert nearest.trials == [22] and nearest.latency == 0.004
    assert judged.same_latency.startswith("no kept trial is as slow as the ensemble: trial 22, the nearest, takes 57%")
    assert single.difference == 0


def test_a_limit_on_latency_holds_for_the_ensemble_and_for_the_best_trial():
    judged = judge(made_up(0.7, 0.7, 0.8), 3, 0.003, seed=0)
    assert judged.rows[0].trials in ([20], [21])
    assert judged.rows[1].trials == [20, 21] and judged.rows[1].latency <= 0.003
    with pytest.raises(ConfigError, match=r"--max-latency 0.0005: .*expected at least 0.001 seconds.* trial 20"):
        judge(made_up(0.7, 0.7), 3, 0.0005, seed=0)


def test_no_ensemble_is_better_is_one_sentence_with_the_numbers(run, tmp_path):
    judged = judge(made_up(0.7, 0.999), 2, None, seed=0)
    assert not judged.is_better
    assert re.fullmatch(r"no ensemble is better than trial 21: (the selection chose trial 21 alone|trials .*)",
                        judged.verdict)  # fmt: skip
    with pytest.raises(RunError, match=r"chose trial 21 alone.*nas-meta export .* --trial 21"):
        write_ensemble(run, made_up(0.7, 0.999), judged, tmp_path / "model")


@pytest.fixture
def scored_as(monkeypatch):
    """Let the command score some candidates without scoring the trials of the run again."""

    def use(candidates):
        monkeypatch.setattr(scoring, "score", lambda run, report: candidates)

    return use


def test_nothing_is_written_if_no_ensemble_is_better_unless_forced(run, candidates, scored_as, tmp_path):
    right = np.eye(2)[candidates.selection.targets]
    part = Queries(np.stack([0.4 + 0.2 * right] * 2), candidates.selection.targets, candidates.selection.episodes)
    part.probabilities[1, :3] = [0.5, 0.5]  # the first trial makes no error, the second three
    two = {name: getattr(candidates, name)[:2] for name in ("trials", "temperatures", "latencies")}
    scored_as(replace(candidates, **two, selection=part, judging=part))
    done = command("ensemble", run.directory, "--to", tmp_path / "model")
    assert "no ensemble is better than trial 1: " in done.stdout and "nothing is written; --force" in done.stdout
    assert not (tmp_path / "model").exists()
    found = json.loads(command("ensemble", run.directory, "--to", tmp_path / "model", "--json").stdout)
    assert found["better"] is False and found["written"] is None
    assert found["rows"][0]["trials"] == [1] and found["rows"][0]["accuracy"] == 1


def test_a_better_ensemble_is_written_with_its_table(run, candidates, scored_as, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    made = made_up(0.7, 0.7, 0.7)
    scored_as(replace(made, trials=candidates.trials[:3]))
    done = command("ensemble", run.directory, "--to", tmp_path / "model", "--size", 2)
    assert re.search(r"ensemble .*[12] \(\d+%\), [23] \(\d+%\)", done.stdout), done.stdout
    assert "the ensemble is better: trials " in done.stdout and "written to" in done.stdout
    assert len(nas_meta.load_classifier(tmp_path / "model").parts.members) == 2
    assert "| ensemble: " in (tmp_path / "model" / "README.md").read_text()


def test_force_writes_an_ensemble_that_is_not_better(run, candidates, scored_as, tmp_path):
    made = made_up(0.7, 0.7)
    few = made.judging.at(np.arange(8))  # of two episodes, whose interval is wide
    scored_as(replace(made, trials=candidates.trials[:2], judging=few))
    done = command("ensemble", run.directory, "--to", tmp_path / "model", "--force")
    assert "no ensemble is better than trial" in done.stdout and (tmp_path / "model" / ENSEMBLE).is_file()


def test_the_folder_classifies_from_the_command_line(forced, support, queries, tmp_path):
    file = tmp_path / "support.jsonl"
    rows = [{"text": text, "label": label} for text, label in zip(*support, strict=True)]
    file.write_text("\n".join(map(json.dumps, rows)))
    done = command("classify", forced, "--support", file, "--json", *queries[:2])
    assert [row["label"] in "abc" for row in json.loads(done.stdout)] == [True, True]


def test_bad_input_is_one_sentence(run, tmp_path):
    def sentence(*arguments, code):
        done = command("ensemble", *arguments, check=code)
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "--size is 0; expected at least 2" in sentence(run.directory, "--to", tmp_path / "a", "--size", 0, code=2)
    assert "--max-latency is nan; expected a positive number" in sentence(
        run.directory, "--to", tmp_path / "a", "--max-latency", "nan", code=2
    )
    assert "full is not empty; expected a new or empty folder" in sentence(
        run.directory, "--to", tmp_path / "full", code=1
    )
    few = shutil.copytree(run.directory, tmp_path / "few")
    for trial in run.trials[1:]:
        weights_path(few, trial.id).unlink()
    assert "has the weights of one trial, 1; expected those of at least 2" in sentence(
        few, "--to", tmp_path / "a", code=1
    )
    assert not (tmp_path / "a").exists()


def test_trials_with_damaged_weights_are_left_out_with_a_warning(run, tmp_path, caplog):
    copy = shutil.copytree(run.directory, tmp_path / "copy")
    weights_path(copy, 1).write_bytes(b"damaged")
    with caplog.at_level("WARNING", "nas_meta"):
        assert [trial.id for trial, _ in kept_trials(load_run(copy))] == [2, 3]
    assert "weights of trial 1 cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, r"has the version 2; expected 1"),
        ({"members": []}, "names no members"),
        ({"members": [{"folder": "../x", "weight": 1, "temperatures": {"2": 1.0}}]}, "is damaged"),
        ({"members": [{"folder": "trial-9", "weight": 1, "temperatures": {"2": 1.0}}]}, "'trial-9', which is not a"),
        ({"members": [{"folder": "trial-1", "weight": 0, "temperatures": {"2": 1.0}}]}, "is damaged"),
        ({"members": [{"folder": "trial-1", "weight": 1, "temperatures": {"2": 0.0}}]}, "is damaged"),
        ({"members": 3}, "is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_description_is_refused(forced, tmp_path, changes, message):
    document = json.loads((forced / ENSEMBLE).read_text()) | changes
    (tmp_path / ENSEMBLE).write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=message):
        nas_meta.load_classifier(tmp_path)


def test_two_episodes_are_too_few_to_select_and_to_judge(run, tmp_path):
    copy = load_run(run.directory)
    config = nas_meta.config.resolved.resolve({**run.config.given, "evaluation": {"episodes": 3}}, recorded=True)
    copy.__dict__["config"] = config
    with pytest.raises(RunError, match=r"has 3 meta-validation episodes; expected at least 4, because half of them"):
        score(copy)
