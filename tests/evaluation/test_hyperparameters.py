"""Choices in the learner and tasks sections: one joint space with the architecture's."""

import json

import pytest
import yaml

from nas_meta import search
from nas_meta.config.problem import make_space
from nas_meta.config.resolved import read_config, resolve
from nas_meta.errors import ConfigError
from nas_meta.space.architecture import Architecture

TOY = '''
import numpy as np
import torch
from pydantic import Field

from nas_meta import SearchSpace
from nas_meta.learners.base import Learner, LearnerOptions


class Space(SearchSpace):
    """The best width depends on the learning rate, and no single step leads from the worst corner to the best."""

    def choices(self):
        return {"width": [1, 2, 3, 4, 5, 6]}

    def build(self, architecture):
        return Table(architecture["width"])


class Table(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.table = torch.nn.Embedding(50000, 2)

    def forward(self, input_ids, attention_mask):
        return self.table(input_ids)


class Options(LearnerOptions):
    strength: int = Field(1, ge=1)


class Toy(Learner):
    """Accuracy is a function of the architecture and the recipe: 1 at width 5, lr 1e-3 and strength 3."""

    Options = Options

    def meta_loss(self, encoder, pool, episode):
        raise AssertionError("a toy does not train")

    def classify(self, encoder, pool, episode):
        raise AssertionError("a toy does not classify")

    def accuracies(self, encoder, pool, tasks):
        far = abs(encoder.model.width - 5) + abs(np.log10(self.options.lr) + 3) + abs(self.options.strength - 3)
        return np.full(len(tasks), 1 - far / 12)


class Other(Toy):
    """Never as good, and knows no strength."""

    Options = LearnerOptions

    def accuracies(self, encoder, pool, tasks):
        return np.full(len(tasks), 0.1)
'''


@pytest.fixture
def toy(tmp_path, labelled_texts):
    (tmp_path / "toy.py").write_text(TOY)
    return {
        "space": {"name": f"{tmp_path}/toy.py:Space"},
        "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 3, "shots": 1, "queries": 3},
        "learner": {
            "name": {"choice": [f"{tmp_path}/toy.py:Toy", f"{tmp_path}/toy.py:Other"]},
            "steps": 0,
            "lr": {"choice": ["1e-5", 1e-4, 1e-3, 1e-2]},
            "strength": {"choice": [1, 2, 3, 4]},
        },
        "strategy": {"name": "evolution", "population": 12},
        "evaluation": {"episodes": 2, "test_episodes": 2, "test_best": 1, "compare": False},
        "budget": {"trials": 90},
        "latency": {"seconds": 0.02},
        "seed": 1,
    }


def test_architecture_and_recipe_are_found_together(toy, tmp_path):
    """6 widths, with 4 rates and 4 strengths of one learner or 4 rates of the other: one of 120 is perfect."""
    run = search(toy, tmp_path / "run", inline=True)
    best = run.best
    assert best.metrics["accuracy"] == pytest.approx(1.0)
    assert best.architecture == {
        "width": 5, "learner.name": toy["learner"]["name"]["choice"][0], "learner.lr": 1e-3, "learner.strength": 3,
    }  # fmt: skip
    assert make_space(resolve(toy)).size() == 6 * (4 * 4 + 4)
    # The other learner knows no strength, so its candidates do not have one.
    others = [t for t in run.trials if t.architecture["learner.name"].endswith("Other")]
    assert others and all("learner.strength" not in t.architecture for t in others)


def test_the_config_of_a_trial_holds_what_it_chose(toy):
    resolved = resolve(toy)
    name = toy["learner"]["name"]["choice"][1]
    one = resolved.at(Architecture({"width": 2, "learner.name": name, "learner.lr": 1e-4}))
    assert one.sections.learner.name == name and one.options["learner"].lr == 1e-4 and not one.searched.choices
    # The run's own record reads back as the same joint space.
    again = resolve(yaml.safe_load(resolved.as_yaml()))
    assert again.searched.choices == resolved.searched.choices
    assert resolved.searched.choices["learner.lr"].values == (1e-5, 1e-4, 1e-3, 1e-2)


@pytest.mark.slow
def test_a_real_search_over_learners_pooling_and_episodes(small_config, tmp_path):
    """Every trial is meta-tested, exported and evaluated with its own recipe."""
    from nas_meta.outputs.export.exported_model import evaluate_folder
    from nas_meta.outputs.export.folder import export

    small_config["learner"] = {
        "name": {"choice": ["protonet", "ridge", "maml"]}, "steps": {"choice": [1, 2]}, "lr": {"choice": [1e-3, 1e-4]},
        "inner_steps": {"choice": [1, 2]}, "training": {"dropout": {"choice": [0.0, 0.1]}},
    }  # fmt: skip
    small_config["tasks"] |= {"pooling": {"choice": ["mean", "cls"]}, "train_shots": {"choice": [1, 3]}}
    small_config["budget"]["trials"] = 5
    small_config["evaluation"] |= {"keep": 5, "test_best": 5}
    run = search(small_config, tmp_path / "run", inline=True)
    assert {t.status for t in run.trials} == {"completed"}
    assert all(t.fidelity == t.architecture["learner.steps"] for t in run.trials)
    assert all(
        ("learner.inner_steps" in t.architecture) == (t.architecture["learner.name"] == "maml") for t in run.trials
    )
    for trial in run.trials[:2]:
        folder = export(run, tmp_path / f"export-{trial.id}", trial.id)
        with pytest.raises(ConfigError, match=r"is a choice of the config; .*nas_meta\.yaml"):
            evaluate_folder(folder, run.config)
        score = evaluate_folder(folder, read_config(folder / "nas_meta.yaml"), episodes=20)
        assert score["accuracy"] == pytest.approx(run.test_of(trial)["test_accuracy"], abs=1e-6)


@pytest.mark.parametrize(
    ("section", "key", "choice", "message"),
    [
        (
            "tasks",
            "shots",
            [1, 5],
            r"tasks\.shots cannot be a choice because all candidates are validated on the same",
        ),
        ("learner", "lr", [], r"learner\.lr\.choice is \[\]; expected a list"),
        ("learner", "lr", [1e-3, -1], r"learner\.lr is -1; expected greater than 0"),
        ("learner", "lrr", [1], r"'learner\.lrr' is not a known key; did you mean 'lr'"),
        ("learner", "name", ["protonet", "ridgee"], r"learner\.name: 'ridgee' is not an installed learner"),
        ("learner", "training", [1], r"learner\.training is 1; expected"),
        ("tasks", "pooling", ["mean", "max"], r"tasks\.pooling is 'max'; expected"),
    ],
)
def test_a_wrong_choice_is_refused_in_words(tmp_path, section, key, choice, message):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({section: {key: {"choice": choice}}}))
    with pytest.raises(ConfigError, match=r"c\.yaml:2: " + message):
        read_config(file)


def test_an_option_that_no_learner_of_the_choice_knows_is_refused(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("learner:\n  name: {choice: [protonet, ridge]}\n  inner_steps: 3\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:3: 'learner\.inner_steps' is not a known key"):
        read_config(file)
    file.write_text("learner:\n  name: {choice: [protonet, maml]}\n  inner_steps: 3\n")
    assert read_config(file).searched.learners.keys() == {"protonet", "maml"}


@pytest.mark.slow
def test_the_schema_knows_choices():
    import jsonschema

    from nas_meta.config.json_schema import schema

    document = {
        "learner": {"name": {"choice": ["protonet", "maml"]}, "lr": {"choice": [1e-5, 1e-4]}},
        "tasks": {"pooling": {"choice": ["mean", "cls"]}},
    }
    jsonschema.validate(document, json.loads(json.dumps(schema())))
    one = {"learner": {"name": "protonet", "lr": {"choice": [1e-5]}, "training": {"clip": {"choice": [1.0, 5.0]}}}}
    jsonschema.validate(one, schema())


def test_more_ways_in_meta_training_than_a_head_has_are_refused(small_config, tmp_path):
    small_config["tasks"]["train_ways"] = 5
    small_config["learner"] = {"name": "maml", "steps": 4}
    with pytest.raises(ConfigError, match=r"tasks\.train_ways is 5, but the head of MAML has tasks\.ways = 3 classes"):
        search(small_config, tmp_path / "run", inline=True)
    small_config["tasks"]["train_ways"] = 50
    small_config["learner"]["name"] = "protonet"
    from nas_meta.errors import DataError

    with pytest.raises(DataError, match=r"tasks\.train_ways is 50, but meta-train has 6 classes"):
        search(small_config, tmp_path / "other", inline=True)
