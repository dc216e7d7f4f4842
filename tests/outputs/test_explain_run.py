"""Which choices matter and why an architecture won, on trials whose landscape is known."""

import json
import warnings

import numpy as np
import optuna
import pytest
from command_line import nas_meta
from planted_run import planted

from nas_meta.core.objectives import Objective
from nas_meta.outputs.explain.importances import divergences, importances
from nas_meta.outputs.explain.path import MISSING, differences, path_to_winner
from nas_meta.outputs.explain.predictor import Predictor
from nas_meta.outputs.explain.results import Results, comparable, results_of
from nas_meta.strategy.stopping.rule import RungReport


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("explained") / "run")


def test_the_planted_choice_stands_out_and_the_others_do_not(run):
    accuracy, flops = importances(results_of(run), run.objectives)
    first = accuracy.choices[0]
    assert (first.choice, first.stands_out, first.best) == ("depth", True, 6)
    assert first.gain == pytest.approx(20, abs=2), "four layers more, five points each"
    assert [row.choice for row in accuracy.choices if row.stands_out] == ["depth"]
    assert sum(row.share for row in accuracy.choices) == pytest.approx(1)
    assert all(0 <= row.low <= row.share <= row.high <= 1 for row in accuracy.choices)
    assert accuracy.sentence.startswith("depth matters for accuracy more than chance explains.")
    assert flops.metric == "flops" and {row.choice for row in flops.choices} == {"depth", "noise", "wide", "width"}


def test_the_divergence_is_that_of_optuna_also_for_a_choice_that_applies_only_under_another(run):
    results = results_of(run)
    study = optuna.create_study(direction="maximize")
    values = {"depth": [2, 4, 6], "noise": ["a", "b"], "wide": [True, False], "width": [64, 128]}
    distributions = {name: optuna.distributions.CategoricalDistribution(listed) for name, listed in values.items()}
    study.add_trials([
        optuna.trial.create_trial(
            params=dict(chosen), distributions={name: distributions[name] for name in chosen}, value=float(value[0])
        )
        for chosen, value in zip(results.architectures, results.values, strict=True)
    ])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.2)
        expected = evaluator.evaluate(study)
    columns = [
        (np.array([listed.index(c[name]) if name in c else -1 for c in results.architectures]), len(listed))
        for name, listed in values.items()
    ]
    own = divergences(columns, -results.values[:, 0], 0.2)
    best = expected["depth"] / own[0]
    assert [expected[name] for name in values] == pytest.approx((own * best).tolist(), rel=1e-6)


def test_without_a_pattern_nothing_stands_out():
    rng = np.random.default_rng(1)
    architectures = [{"a": int(rng.integers(2)), "b": int(rng.integers(3))} for _ in range(40)]
    results = Results(range(40), architectures, rng.normal(size=(40, 1)))
    (found,) = importances(results, [Objective("accuracy")])
    assert not any(row.stands_out for row in found.choices)
    assert found.sentence.startswith("No choice stands out for accuracy: with 40 completed trials")


@pytest.mark.parametrize("trials", [0, 1, 9])
def test_too_few_trials_are_reported_in_a_sentence(tmp_path, trials):
    few = planted(tmp_path / "few", trials, tested=False)
    for found in importances(results_of(few), few.objectives):
        assert found.choices == ()
        assert found.sentence == (
            f"Which choices matter cannot be seen from {trials} completed trials; expected at least 10."
        )
    path = path_to_winner(few, results_of(few))
    assert (path is None) == (trials == 0)


def test_trials_that_were_stopped_early_are_compared_at_the_rung_that_most_reached():
    objectives = [Objective("accuracy")]
    run_trials = [trial(1, "completed", 0.9), *(trial(i, "stopped", 0.5) for i in range(2, 6))]
    reports = [RungReport(i, 2, (0.1 * i,), np.zeros(1)) for i in range(1, 6)]
    reports += [RungReport(i, 4, (0.2 * i,), np.zeros(1)) for i in (1, 2)]
    found = comparable(run_trials, reports, objectives)
    assert (found.step, list(found.trials)) == (2, [1, 2, 3, 4, 5])
    assert found.values[:, 0] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    completed = comparable([trial(i, "completed", 0.9) for i in range(1, 6)], reports, objectives)
    assert completed.step is None and completed.values[:, 0] == pytest.approx([0.9] * 5)


def trial(number, status, accuracy):
    from nas_meta.journal.records import Trial

    return Trial(number, {"a": number}, 0, 4, status, {"accuracy": accuracy, "accuracy_ci95": 0.0})


def test_the_path_begins_at_the_truncation_and_takes_the_planted_choice_first(run):
    path = path_to_winner(run, results_of(run))
    assert path.start == "the first layers trained alike" and path.winner == run.best.id
    assert path.steps[0].changes == {"depth": (2, 6)}
    assert path.steps[0].gain == pytest.approx(20, abs=5)
    last = path.steps[-1]
    equal = [t.metrics["accuracy"] for t in run.trials if t.metrics and t.architecture == run.best.architecture]
    assert last.measured and last.value == pytest.approx(100 * np.mean(equal))
    assert path.start_value + sum(step.gain for step in path.steps) == pytest.approx(last.value)
    assert len(path.rivals) == 3 and all(rival.gap >= 0 for rival in path.rivals)
    for rival in path.rivals:
        assert rival.differs == differences(run.best.architecture, run.trial(rival.trial).architecture)


def test_steps_without_a_trial_are_predicted_and_marked(tmp_path):
    run = planted(tmp_path / "run", trials=12, seed=3)
    path = path_to_winner(run, results_of(run))
    known = [dict(c) for c in results_of(run).architectures]
    current, marks = dict(planted_start(run)), [path.start_measured]
    assert path.start_measured == (current in known)
    for step in path.steps:
        current |= {name: after for name, (_, after) in step.changes.items()}
        current = {name: value for name, value in current.items() if value != MISSING}
        assert step.measured == (current in known)
        assert step.gain_measured == (step.measured and marks[-1])
        marks.append(step.measured)
    assert current == run.best.architecture
    assert not all(marks) and "predicted by a regression" in path.sentence and path.error > 0


def planted_start(run):
    return run.best.architecture | {"depth": 2, "noise": "a"}


def test_a_choice_that_begins_to_apply_changes_together_with_the_one_that_decides_it(tmp_path):
    run = planted(tmp_path / "run", seed=2)
    results = results_of(run)
    narrow = next(c for c in results.architectures if not c["wide"])
    wide = next(c for c in results.architectures if c["wide"])
    from nas_meta.outputs.explain.path import _units

    units = _units(narrow, wide, results.architectures)
    assert {"wide": (False, True), "width": (MISSING, wide["width"])} in units
    assert sorted(name for unit in units for name in unit) == sorted(differences(narrow, wide))


def test_the_predictor_finds_additive_effects_and_knows_its_error():
    rng = np.random.default_rng(0)
    architectures = [{"a": int(rng.integers(3)), "b": bool(rng.integers(2))} for _ in range(60)]
    values = np.array([2.0 * c["a"] + 5.0 * c["b"] for c in architectures])
    predictor = Predictor(architectures, values)
    assert predictor.predict([{"a": 2, "b": True}, {"a": 0, "b": False}]) == pytest.approx([9, 0], abs=0.1)
    assert predictor.error < 0.1
    noisy = Predictor(architectures, rng.normal(size=60))
    assert 0.5 < noisy.error < 1.5, "what it cannot know is not claimed"


def test_the_command_prints_tables_and_the_same_as_json(run):
    shown = nas_meta("explain", run.directory).stdout
    for words in ("Which choices matter for accuracy", "depth", "one choice at a time", "Nearest rivals"):
        assert words in shown
    document = json.loads(nas_meta("explain", run.directory, "--json").stdout)
    assert document["importances"][0]["choices"][0]["choice"] == "depth"
    assert document["path"]["winner"] == run.best.id


def test_wrong_use_is_one_sentence(run, tmp_path):
    def refused(*arguments):
        return nas_meta("explain", *arguments, check=2).stderr

    assert "is not a run directory" in refused(tmp_path)
    assert "TEXT is missing beside --trial" in refused(run.directory, "--trial", "3")
    (tmp_path / "support.jsonl").write_text('{"text": "one", "label": "a"}\n')
    assert "TEXT is missing beside --support" in refused(run.directory, "--support", tmp_path / "support.jsonl")
