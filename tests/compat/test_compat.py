"""A plugin that was written against nas-meta 0.1 works, as it is.

What stands in ``plugins`` and ``api`` is frozen: where one of these tests fails, the package is wrong. New promises are
new lines in ``api`` and new files in ``plugins``.
"""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import nas_meta
from nas_meta import testing
from nas_meta.models.state import deserialize_state
from nas_meta.outputs.export.folder import export

from . import public_api

HERE = Path(__file__).parent
PLUGINS = HERE / "plugins"
STUBS = sorted((HERE / "api").glob("*.pyi"))


@pytest.mark.parametrize("file", STUBS, ids=lambda file: file.stem)
def test_what_plugins_rely_on_is_there(file):
    assert public_api.breaks(file.read_text(), importlib.import_module(file.stem)) == []


OLD = """
class Thing:
    size = ...
    def __init__(self, a, b=1): ...
    def do(self, x, *, y='z'): ...
def make(a, b=2): ...
"""


def breaks_of(source):
    module = ModuleType("changed")
    exec(source, vars(module))
    return public_api.breaks(OLD, module)


SAME = "class Thing:\n size = 1\n def __init__(self, a, b=1): 0\n def do(self, x, *, y='z'): 0\ndef make(a, b=2): 0\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size = 1", "width = 1", "changed.Thing.size is gone"),
        ("def make", "def build", "changed.make is gone"),
        ("def do", "def act", "changed.Thing.do is gone"),
        ("class Thing", "class Other", "changed.Thing is gone"),
        ("self, a, b=1", "self, a, b", "changed.Thing: the parameter b has no default any more"),
        ("self, a, b=1", "self, a, b=3", "changed.Thing: the default of b was 1 and is 3"),
        ("self, x", "self, x, n", "changed.Thing.do: the parameter n is new and has no default"),
        ("self, x", "self, other", "changed.Thing.do: the parameter x is gone"),
        ("*, y='z'", "*, why='z'", "changed.Thing.do: the parameter y is gone"),
        ("make(a, b=2)", "make(c=0, a=1, b=2)", "changed.make: the parameter a is not the one at place 0 any more"),
        ("make(a, b=2)", "make(a, *, b=2)", "changed.make: the parameter b is not the one at place 1 any more"),
    ],
)
def test_what_breaks_a_plugin_is_told(old, new, said):
    assert said in breaks_of(SAME.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [("", ""), ("size = 1", "size = 2; more = 3"), ("b=1", "b=1, c=None"), ("y='z'", "y='z', w=0"),
     ("make(a, b=2)", "make(a=1, b=2, **rest)"), ("class Thing", "new = 1\nclass Thing")],
)  # fmt: skip
def test_what_is_added_breaks_nothing(old, new):
    assert breaks_of(SAME.replace(old, new)) == []


def config(space, tokenizer, **sections):
    """A search of seconds with frozen plugins alone, but for what is said otherwise."""
    return {
        "space": {"name": f"{PLUGINS / space}", "tokenizer": str(tokenizer)},
        "tasks": {"source": f"{PLUGINS / 'source.py'}:Animals", "ways": 2, "shots": 1, "queries": 3},
        "learner": {"name": f"{PLUGINS / 'learner.py'}:ScaledMeans", "steps": 3, "lr": 1e-2, "train_embeddings": True},
        "strategy": {"name": f"{PLUGINS / 'strategy.py'}:Line"},
        "evaluation": {"episodes": 20, "test_episodes": 20, "test_best": 1},
        "budget": {"trials": 3},
        "latency": {"seconds": 0.01},
        "seed": 1,
    } | sections


def test_a_space_with_conditions_a_constraint_counts_and_its_own_format(tiny_model, tmp_path):
    limits = {"accuracy": "maximize", "params": {"direction": "minimize", "max": 500}}
    run = nas_meta.search(config("space.py:BagSpace", tiny_model, objectives=limits), tmp_path / "run", inline=True)
    space = run.config.plugin("space")(run.config.options["space"])
    assert [t.status for t in run.trials] == ["completed"] * 3
    for trial in run.trials:
        architecture = space.architecture(trial.architecture)
        assert ("hidden" in architecture.values) == (architecture["network"] != "none")
        assert ("double" in architecture.values) == (architecture["network"] == "large")
        assert trial.metrics["params"] == space.counts(architecture, 32)["params"] <= 500
        assert space.problem_of(architecture) is None
    assert run.report["references"]["unsearched model, no training"]["params"] == 40 * 16
    # none: 1; small: 3 hidden; large: 3 hidden times 2; each for 3 widths, the smallest without the widest hidden
    assert space.size() == 3 * (1 + 3 + 6) - 3

    folder = export(run, tmp_path / "model")
    best, kept = space.load(folder), deserialize_state(run.weights_of(run.best))
    assert {n: t.tolist() for n, t in best.state_dict().items()} == {
        n.removeprefix("model."): t.tolist() for n, t in kept.items() if n.startswith("model.")
    }
    # A learner's own number was trained.
    assert any(n.startswith("learned.") and t.item() != 10.0 for n, t in kept.items())


def test_a_space_of_spaces_with_a_part_that_may_be_missing(tiny_model, tmp_path):
    parts = {"one": "space.py:BagSpace", "two": "supernet.py:LayerSpace"}
    document = config("composed.py:Pair", tiny_model)
    document["space"] = {"name": f"{PLUGINS / 'composed.py'}:Pair"} | {
        part: {"name": f"{PLUGINS / name}", "tokenizer": str(tiny_model)} for part, name in parts.items()
    }
    run = nas_meta.search(document, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 3
    for trial in run.trials:
        assert any(n.startswith("two.") for n in trial.architecture) == trial.architecture["both"]
    space = run.config.plugin("space")(run.config.options["space"])
    assert space.size() == 27 + 27 * 3 * 3 * 2 * 2


def test_a_strategy_with_a_job_whose_trials_start_from_its_supernet(tiny_model, tmp_path):
    document = config(
        "supernet.py:LayerSpace",
        tiny_model,
        strategy={"name": f"{PLUGINS / 'strategy.py'}:OneShot", "steps": 4},
        tasks={"source": f"{PLUGINS / 'source.py'}:SplitAnimals", "ways": 2, "queries": 3},
    )
    document["learner"]["steps"] = 0
    run = nas_meta.search(document, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * len(run.trials) and len(run.trials) >= 2
    assert run.config.document["strategy"]["judged"] == 4
    assert [dict(t.architecture) for t in run.trials] == run.findings["architectures"][: len(run.trials)]
    # Not trained further: what was kept of a trial is its share of the supernet.
    space = run.config.plugin("space")(run.config.options["space"])
    supernet = space.supernet()
    supernet.load_state_dict(deserialize_state(run.supernet.tobytes()))
    share = supernet.extract(nas_meta.Architecture(run.best.architecture)).state_dict()
    kept = deserialize_state(run.weights_of(run.best))
    assert all(torch.equal(tensor, kept[f"model.{name}"]) for name, tensor in share.items())


@pytest.mark.slow  # imports NNI
def test_its_supernet_is_trained_by_a_strategy_that_ships(tiny_model, tmp_path):
    strategy = {"name": "spos", "steps": 4, "population": 4, "generations": 2, "parents": 2, "search_episodes": 4}
    document = config("supernet.py:LayerSpace", tiny_model, strategy=strategy)
    document["learner"] = {"name": "protonet", "steps": 2, "train_embeddings": True}
    run = nas_meta.search(document, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 3


def test_a_search_goes_on_with_frozen_plugins(tiny_model, tmp_path):
    document = config("space.py:BagSpace", tiny_model)
    whole = nas_meta.search(document, tmp_path / "whole", inline=True)
    nas_meta.search(document | {"budget": {"trials": 2}}, tmp_path / "parts", inline=True)
    parts = nas_meta.resume(tmp_path / "parts", ["budget.trials=3"], inline=True, allow_plugins=True)
    for one, two in zip(whole.trials, parts.trials, strict=True):
        assert (one.architecture, one.seed) == (two.architecture, two.seed)
        assert one.metrics["accuracy"] == two.metrics["accuracy"]


@pytest.mark.parametrize("space", ["space.py:BagSpace", "supernet.py:LayerSpace"])
def test_its_own_tests_pass(space, tiny_model):
    name = str(PLUGINS / space)
    made = nas_meta_plugin(name)

    class TestIt(testing.SpaceTests):
        def make_space(self):
            return made(made.Options(tokenizer=str(tiny_model)))

    tests = TestIt()
    for test in [getattr(tests, n) for n in dir(tests) if n.startswith("test_")]:
        test()


def nas_meta_plugin(name):
    from nas_meta.core import plugins

    return plugins.load("spaces", name)


def test_a_source_says_what_is_wrong_in_its_own_words(tiny_model, tmp_path):
    document = config("space.py:BagSpace", tiny_model)
    document["tasks"]["examples"] = 501
    with pytest.raises(nas_meta.NasMetaError, match="task source Animals: there are not so many texts"):
        nas_meta.search(document, tmp_path / "run", inline=True)


def test_a_choice_of_the_learner_and_a_frozen_space_are_one_joint_space(tiny_model, tmp_path):
    document = config("space.py:BagSpace", tiny_model)
    document["learner"]["temperature"] = {"choice": [1.0, 20.0]}
    run = nas_meta.search(document, tmp_path / "run", inline=True)
    assert {t.architecture["learner.temperature"] for t in run.trials} <= {1.0, 20.0}
    assert np.isfinite([t.metrics["accuracy"] for t in run.trials]).all()
