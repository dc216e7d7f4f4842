"""Full-way evaluation: all classes at once, the support set is drawn, every other example is a query."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from nas_meta import search
from nas_meta.cli.main import app
from nas_meta.errors import ConfigError, DataError
from nas_meta.evaluation import full_way
from nas_meta.outputs.export.folder import export
from nas_meta.tasks.pool import Pool


def pool(sizes, **further):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return Pool([f"c{i}" for i in range(len(sizes))], ["x"] * len(labels), labels, **further)


def test_a_draw_uses_every_example_once():
    task = full_way.draw(pool([3, 5, 4]), shots=2, seed=0, index=0)
    assert task.support.shape == (3, 2) and [set(row) <= s for row, s in zip(
        task.support, ({0, 1, 2}, {3, 4, 5, 6, 7}, {8, 9, 10, 11}), strict=True)] == [True] * 3  # fmt: skip
    assert sorted(task.indices) == list(range(12)) and task.labels.tolist() == [0, 1, 1, 1, 2, 2]
    other = full_way.draw(pool([3, 5, 4]), shots=2, seed=0, index=1)
    assert other.support.tolist() != task.support.tolist(), "draws differ"


def test_given_queries_are_the_same_in_every_draw_and_never_support():
    queries = np.array([0, 4, 9])
    for task in full_way.draws(pool([3, 5, 4]), 2, seed=0, count=20, queries=queries):
        assert task.query.tolist() == [[0, 4, 9]] and not np.isin(task.support, queries).any()


def test_chunks_of_queries_give_the_accuracy_of_the_whole():
    task = full_way.draw(pool([700, 900]), shots=1, seed=0, index=0)
    sizes = []

    def score(tasks):
        sizes.extend(len(t.targets) for t in tasks)
        return np.array([(t.labels == 1).mean() for t in tasks])  # a classifier that always predicts class 1

    assert full_way.accuracies(score, [task]) == pytest.approx([899 / 1598])
    assert sizes == [1024, 574]


def test_classes_that_are_too_small_or_in_groups_are_refused():
    with pytest.raises(DataError, match=r"2 shots needs 3 examples of every class, but the class 'c1' has 2"):
        full_way.draw(pool([3, 2]), shots=2, seed=0, index=0)
    with pytest.raises(DataError, match=r"tasks.group divides them"):
        full_way.draws(pool([3, 3], groups=["a", "b"]), 1, seed=0)


def test_a_search_and_evaluate_take_all_classes_of_a_split(small_config, tmp_path):
    small_config |= {"strategy": {"name": "random"}, "budget": {"trials": 1}}
    small_config["evaluation"] = {"protocol": "full-way", "episodes": 200, "test_episodes": 3, "compare": False}
    run = search(small_config, tmp_path / "run", inline=True)
    test = run.test_of(run.best)
    assert 0 < test["test_accuracy"] <= 1 and len(run.report["right"]["trials"]["1"]) == 3
    folder = export(run, tmp_path / "model")
    command = ["evaluate", str(folder), "--config", str(folder / "nas_meta.yaml"), "--json"]
    row = json.loads(CliRunner().invoke(app, [*command, "--episodes", "3"]).stdout)
    assert row["protocol"] == "full-way" and row["queries"] == run.report["queries"]
    assert row["accuracy"] == pytest.approx(test["test_accuracy"], abs=1e-6), "the same draws as the meta-test"
    episodes = [*command, "--set", "evaluation.protocol=episodes", "--full-way"]
    assert json.loads(CliRunner().invoke(app, episodes).stdout)["episodes"] == 10
    printed = CliRunner().invoke(app, [*command[:-1]]).stdout
    assert f"on all {row['ways']} classes of meta-test" in printed and "10 draws of the support set" in printed


def test_a_learner_with_a_fixed_head_is_refused(small_config, tmp_path):
    small_config |= {"learner": {"name": "maml", "steps": 1}}
    small_config["evaluation"] = {"protocol": "full-way"}
    with pytest.raises(ConfigError, match=r"the head of MAML has tasks.ways classes; expected evaluation.protocol"):
        search(small_config, tmp_path / "run", inline=True)
