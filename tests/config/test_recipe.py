"""The default training: what it fills in, where, and that runs keep what they began with."""

import pytest
from installed import shipped

from nas_meta.config.problem import load_problem, train_shape
from nas_meta.config.resolved import resolve
from nas_meta.controller.launch import search
from nas_meta.errors import ConfigError
from nas_meta.journal.database import Journal
from nas_meta.tasks.episodes import EpisodeShape, TrainShape

OLD = {"train_ways": None, "train_queries": None}, {"warmup": 0.0, "decay": "none"}


def head_of(document):
    return getattr(resolve(document).options["learner"], "head", None)


def recipe_of(document):
    """What a config says about meta-training episodes and the schedule."""
    config = resolve(document)
    training = config.options["learner"].training
    section = config.sections.tasks
    return (section.train_ways, section.train_queries), (training.warmup, training.decay)


@pytest.mark.parametrize("space", shipped("spaces"))
def test_all_spaces_get_many_ways_and_a_schedule(space):
    assert recipe_of({"space": {"name": space}}) == (("auto", "auto"), (0.1, "cosine"))


def test_learners_that_compare_embeddings_choose_a_head():
    assert head_of({}) == head_of({"learner": {"name": "ridge"}}) == "auto"
    assert head_of({"space": {"name": "encoder"}}) == "auto"
    assert head_of({"learner": {"head": "none"}}) == "none"
    assert head_of({"learner": {"name": "maml"}}) is None
    assert "head" not in resolve({"learner": {"name": {"choice": ["protonet", "maml"]}}}).document["learner"]


def test_the_learning_rate_suits_the_models():
    def of(**document):
        options = resolve(document).options["learner"]
        return options.lr, options.train_embeddings

    assert of() == of(learner={"name": "ridge"}) == (5e-5, False)
    assert of(learner={"lr": 1e-4}) == (1e-4, False)
    assert of(learner={"name": "maml"}) == of(space={"name": "cell-encoder"}) == (2e-5, False)
    for space in ("encoder", "decoder", "vit"):
        assert of(space={"name": space}) == of(space={"name": space}, learner={"name": "maml"}) == (5e-4, True)
    assert of(space={"name": "encoder"}, learner={"lr": 1e-3, "train_embeddings": False}) == (1e-3, False)


def test_pretrained_models_that_are_compared_take_the_faster_precision():
    def of(**document):
        return resolve(document).sections.compute.precision

    assert of() == of(learner={"name": "ridge"}) == of(compute={"device": "cpu"}) == "auto"
    assert of(compute={"precision": "fp32"}) == "fp32"
    assert of(space={"name": "encoder"}) == of(learner={"name": "maml"}) == "fp32"


def test_only_what_is_left_out_is_filled_in():
    assert recipe_of({"learner": {"name": "prototype-maml"}}) == ((None, None), (0.1, "cosine"))
    assert recipe_of({"learner": {"name": "mann"}})[0] == (None, None), "its head has a fixed number of classes"
    assert recipe_of({"learner": {"name": {"choice": ["protonet", "maml"]}}})[0] == (None, None)
    assert recipe_of({"learner": {"name": {"choice": ["protonet", "ridge"]}}})[0] == ("auto", "auto")
    given = {"tasks": {"train_ways": 8, "train_queries": None}, "learner": {"training": {"decay": "linear"}}}
    assert recipe_of(given) == ((8, None), (0.1, "linear"))
    assert recipe_of(resolve(given).document) == ((8, None), (0.1, "linear"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ways": 2}, EpisodeShape(6, 1, 2)),  # all six classes of meta-train, fewer than four times two
        ({"ways": 2, "queries": 1}, EpisodeShape(6, 1, 1)),
        ({"ways": 2, "train_ways": 3, "train_queries": 4}, EpisodeShape(3, 1, 4)),
        ({"ways": 2, "train_ways": None}, EpisodeShape(2, 1, 2)),
    ],
)
def test_the_classes_of_meta_train_limit_the_ways(small_config, given, expected):
    del small_config["tasks"]["ways"]
    small_config["tasks"] |= given
    resolved = resolve(small_config)
    _, tasks, shape = load_problem(resolved)
    assert train_shape(resolved, tasks).of(shape) == expected
    assert train_shape(resolved) == TrainShape(given.get("train_ways"), None, expected.queries), "without tasks"


def test_wrong_numbers_of_ways_are_refused_with_a_sentence():
    with pytest.raises(ConfigError, match=r"tasks\.train_ways: 1 is not a number of .*; expected auto or at least 2"):
        resolve({"tasks": {"train_ways": 1}})
    with pytest.raises(ConfigError, match=r"tasks\.train_ways\.choice has auto; expected numbers"):
        resolve({"tasks": {"train_ways": {"choice": [5, "auto"]}}})


def test_a_run_records_the_shape_and_resumes_with_the_config_of_the_user(small_config, tmp_path):
    small_config["budget"]["trials"] = 1
    run = search(small_config, tmp_path / "run", inline=True)
    recorded = Journal.open(run.directory).get("config")
    assert (recorded["tasks"]["train_ways"], recorded["tasks"]["train_queries"]) == (6, 2)
    small_config["budget"]["trials"] = 2
    assert len(search(small_config, run.directory, inline=True, resume=True).trials) == 2


@pytest.mark.slow
def test_a_run_of_an_earlier_version_keeps_its_training(small_config, tmp_path):
    """Its journal has the defaults of then; the config of the user has none of these keys."""
    tasks, training = OLD
    small_config["budget"]["trials"] = 1
    old = {**small_config, "tasks": {**small_config["tasks"], **tasks}}
    old["learner"] = {**small_config["learner"], "training": training}
    run = search(old, tmp_path / "run", inline=True)
    small_config["budget"]["trials"] = 2
    again = search(small_config, run.directory, inline=True, resume=True)
    assert len(again.trials) == 2
    assert recipe_of(Journal.open(run.directory).get("config")) == ((None, None), (0.0, "none"))
    assert again.config.options["learner"].training.decay == "none"
    small_config["learner"]["training"] = {"decay": "cosine"}
    with pytest.raises(ConfigError, match=r"learner\.training\.decay is 'cosine', but the run began with 'none'"):
        search(small_config, run.directory, inline=True, resume=True)


def test_a_run_that_searches_the_learner_keeps_the_training_that_its_journal_leaves_out(small_config, tmp_path):
    small_config["learner"] = {"name": {"choice": ["protonet", "ridge"]}, "steps": 2}
    assert resolve(small_config, recorded=True).options["learner"].training.decay == "none"
    small_config["budget"]["trials"] = 1
    run = search(small_config, tmp_path / "run", inline=True)
    assert run.config.training("decay") == ("cosine",)
