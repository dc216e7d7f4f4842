"""Class names as support examples: what an episode holds, and what a config may ask for."""

import numpy as np
import pytest

from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError
from nas_meta.evaluation.full_way import draw, query_count
from nas_meta.evaluation.protocols import FULL_WAY, task_words
from nas_meta.tasks.class_names import are_words, in_words
from nas_meta.tasks.episodes import EpisodeShape, episode
from nas_meta.tasks.open_set import open_set_episode

SHAPE = EpisodeShape(3, 1, 2)


@pytest.fixture(scope="module")
def tasks_of(tiny_model, labelled_texts):
    """The tasks of a config, with and without class names."""

    def load(class_names, **sections):
        config = {
            "space": {"name": "bert-subnet", "model": str(tiny_model), "importance_episodes": 1},
            "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 3, "shots": 1, "queries": 2,
                      "class_names": class_names},
        }  # fmt: skip
        return load_problem(resolve(config | sections)).tasks

    return load


@pytest.mark.parametrize(
    ("name", "words"),
    [("card_lost", "card lost"), ("card-lost", "card lost"), ("CardLost", "Card Lost"), ("iPhone", "iPhone"),
     ("e-mail is late", "e-mail is late"), ("_", "_"), (" two  spaces ", "two spaces"), ("PIN2FA", "PIN2FA")],
)  # fmt: skip
def test_names_become_words(name, words):
    assert in_words(name) == words


def test_the_support_set_holds_the_name_of_each_class_last(tasks_of):
    pool = tasks_of(True)["meta-validation"]
    for index in range(20):
        task = episode(pool, SHAPE, 1, index)
        assert task.support.shape == (3, 2)
        for row in task.support:
            name = in_words(pool.classes[pool.labels[row[0]]])
            assert pool.texts[row[-1]] == name
            assert pool.tokens[pool.offsets[row[-1]] : pool.offsets[row[-1] + 1]].size > 2
        assert not np.isin(task.query, pool.name_rows).any()


def test_examples_and_queries_are_those_of_episodes_without_names(tasks_of):
    named, plain = tasks_of(True)["meta-test"], tasks_of(False)["meta-test"]
    assert len(named) == len(plain) + len(plain.classes) and len(named.examples) == len(plain.examples)
    for index in range(20):
        one, other = episode(named, SHAPE, 1, index), episode(plain, SHAPE, 1, index)
        assert np.array_equal(one.support[:, :-1], other.support) and np.array_equal(one.query, other.query)
        one, other = (open_set_episode(pool, EpisodeShape(2, 1, 2), 1, 1, index) for pool in (named, plain))
        assert np.array_equal(one.outside, other.outside) and not np.isin(one.outside, named.name_rows).any()


@pytest.mark.parametrize("named", [True, False])
def test_some_examples_without_their_texts_keep_their_classes_and_the_names_of_these(tasks_of, named):
    pool, classes = tasks_of(named)["meta-train"], np.array([1, 3])
    rows = np.concatenate([pool.members[3][:2], pool.members[1][:3]])  # in any order
    part, origin = pool.labels_alone(rows, classes)
    assert part.classes == [pool.classes[1], pool.classes[3]] and part.labels.tolist()[:5] == [1, 1, 0, 0, 0]
    assert [pool.classes[label] for label in pool.labels[origin]] == [part.classes[label] for label in part.labels]
    assert np.array_equal(origin[:5], rows) and len(part) == (7 if named else 5)
    assert not named or np.array_equal(origin[part.name_rows], pool.name_rows[classes])
    assert [len(members) for members in part.members] == [3, 2]
    assert pool.labels_alone(pool.examples)[0].labels.tolist() == pool.labels.tolist()


def test_no_name_is_a_query_of_all_classes_at_once(tasks_of):
    pool = tasks_of(True)["meta-test"]
    task = draw(pool, 1, 0, 0)
    assert task.support.shape == (len(pool.classes), 2) and np.array_equal(task.support[:, 1], pool.name_rows)
    assert not np.isin(task.query, pool.name_rows).any()
    assert task.query.size == query_count(pool, SHAPE, FULL_WAY)


def test_a_search_says_that_names_are_examples(tasks_of):
    report = tasks_of(True).report
    assert any("name of each class" in sentence for sentence in report)
    assert not any("name of each class" in sentence for sentence in tasks_of(False).report)
    assert task_words(5, 1, True) == "5-way 1-shot, with class names" and task_words(None, 5, False) == "5-shot"


def test_images_have_no_names_that_are_examples():
    config = {"space": {"name": "vit"}, "tasks": {"source": "digits", "class_names": True}}
    with pytest.raises(ConfigError, match=r"tasks\.class_names .* gives images; expected class_names: false"):
        load_problem(resolve(config))


def test_a_learner_with_names_in_its_prompt_needs_none(tasks_of, tiny_model):
    with pytest.raises(ConfigError, match="learner 'in-context' has the names of classes in its prompts already"):
        tasks_of(True, learner={"name": "in-context", "steps": 0})


@pytest.mark.parametrize(
    ("names", "words"),
    [(["card_lost", "fee", "payOut"], True), (["0", "1"], False), (["class1", "class2"], False), (["A", "B"], False),
     (["A00-B99", "C00-D49"], False), (["Karte verloren", "Gebühr"], True)],
)  # fmt: skip
def test_numbers_and_codes_are_no_words(names, words):
    assert are_words(names) is words
