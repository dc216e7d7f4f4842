"""Searches by one-shot strategies: whole and small, with a planted answer, and those that are refused."""

import pytest
from installed import ONE_SHOT_STRATEGIES, marked

from benchmarks.planted_optimum import LAYERS, Planted, accuracy_of, evaluation_of, find
from nas_meta import Architecture, SearchContext, SearchSpace, search
from nas_meta.core.objectives import Objective
from nas_meta.errors import ConfigError, NasMetaError, StrategyError
from nas_meta.models.state import deserialize_state
from strategies.one_shot.darts import DARTS, GumbelDARTS
from strategies.one_shot.enas import ENAS
from strategies.one_shot.spos import SPOS


class NoSupernet(SearchSpace):
    """A space without a supernet."""

    def choices(self):
        return {"scale": ["one", "two"]}

    def build(self, architecture):
        raise AssertionError("not built here")


@pytest.fixture
def one_shot_config(small_config):
    small_config["space"] = {
        "name": "cell-encoder", "model": small_config["space"]["model"], "layers": 2,
        "heads": [2], "kernels": [3], "gated": [1.0], "ffn": [1.0],
    }  # fmt: skip
    small_config["budget"] = {"trials": 3}
    small_config["evaluation"] |= {"interim_every": 0, "keep": 1}
    return small_config


SMALL = {
    "darts": {"order": 2},
    "spos": {"generations": 2, "population": 4},
    "enas": {"update_every": 2, "update_times": 1, "reward_episodes": 1, "candidates": 4, "search_episodes": 4},
}


@pytest.mark.parametrize("learner", [{"name": "protonet"}, {"name": "matching", "full_context": True}])
@pytest.mark.parametrize("name", marked(ONE_SHOT_STRATEGIES, ["spos"]))
def test_a_learner_may_ask_for_the_width_of_embeddings_before_a_path_is_drawn(name, learner, one_shot_config, tmp_path):
    """A head has their width, and so have the LSTMs of full context; heads are the default."""
    if name == "enas":
        pytest.importorskip("tianshou")
    one_shot_config["strategy"] = {"name": name, "steps": 2, **SMALL.get(name, {})}
    one_shot_config["learner"] = {"steps": 2, **learner}
    one_shot_config["budget"] = {"trials": 1}
    assert search(one_shot_config, tmp_path / "run", inline=True).trials[0].status == "completed"


@pytest.mark.parametrize("name", marked(ONE_SHOT_STRATEGIES, ["darts", "spos"]))
def test_a_search_trains_the_supernet_and_then_what_is_derived_from_it(name, one_shot_config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if name == "enas":
        pytest.importorskip("tianshou")
    one_shot_config["strategy"] = {"name": name, "steps": 6, "checkpoint_every": 3, **SMALL.get(name, {})}
    run = search(one_shot_config, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 3
    assert len({t.architecture_id for t in run.trials}) == 3
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "supernet")).Reload()
    assert [e.step for e in events.Scalars("meta-train/loss")] == [1, 2, 3, 4, 5, 6]
    space = run.config.plugin("space")(run.config.options["space"])
    shown = {tag for tag in events.Tags()["scalars"] if tag.startswith("probability/")}
    if name == "spos":
        assert shown == set() and len(events.Scalars("supernet/best_inherited_accuracy")) == 2
    else:
        assert shown == {f"probability/{n}/{v}" for n, c in space.table.items() for v in c.values}
        for choice, values in ((n, c.values) for n, c in space.table.items()):
            last = [events.Scalars(f"probability/{choice}/{v}")[-1].value for v in values]
            assert sum(last) == pytest.approx(1, abs=1e-5)
    weights = deserialize_state((tmp_path / "run" / "supernet.safetensors").read_bytes())
    supernet = space.supernet()
    supernet.load_state_dict(weights)  # strict: nothing of NNI's is in the file
    assert supernet.extract(Architecture(run.trials[0].architecture)) is not None


def test_architecture_parameters_move_only_by_the_held_out_classes():
    """With no architecture step they stay as they were, however long the weights learn."""
    outcomes = {}
    for warmup in (0.99, 0.0):
        space = Planted(0)
        strategy = DARTS(SearchContext(space, [Objective("accuracy")], 1, 1, 0), DARTS.Options(steps=4, warmup=warmup))
        steps = [p.values for p in evaluation_of(space, 0).run(strategy.job())]
        tag = "probability/layer0/a"
        outcomes[warmup] = [step[tag] for step in steps], ["meta-train/architecture_loss" in step for step in steps]
    still, moving = outcomes[0.99], outcomes[0.0]
    assert still[0][0] == still[0][2] and still[1] == [False, False, False, True]
    assert len(set(moving[0])) == 4 and moving[1] == [True] * 4


@pytest.mark.slow
def test_a_job_is_a_function_of_its_seed():
    proposals = [find(SPOS, 1, steps=4, generations=1, population=4).architecture for _ in range(2)]
    assert proposals[0] == proposals[1]


def test_darts_finds_the_planted_operations():
    found = find(DARTS, 0, steps=80, arch_lr=0.05)
    assert found.architecture == Planted(0).answer and found.right == LAYERS


def test_spos_finds_the_planted_operations():
    found = find(SPOS, 0, steps=100, generations=4, population=10)
    assert found.architecture == Planted(0).answer


@pytest.mark.slow
def test_gumbel_darts_finds_the_planted_operations():
    found = [find(GumbelDARTS, seed, steps=250, arch_lr=0.05, warmup=0, last_temperature=1.0) for seed in (1, 2)]
    assert [f.right for f in found] == [LAYERS, LAYERS]


def test_the_planted_answer_is_the_only_good_one():
    space = Planted(0)
    assert accuracy_of(space, space.answer, 0) > 0.97
    for name, letter in space.answer.values.items():
        for other in set("abcd") - {letter}:
            assert accuracy_of(space, Architecture({**space.answer.values, name: other}), 0) < 0.8


def test_a_space_without_a_supernet_is_refused_before_anything_is_trained(small_config, tmp_path):
    small_config["strategy"] = {"name": "darts"}
    refusal = "strategy 'darts' needs a space with a supernet, but NoSupernet has none; expected cell-encoder"
    with pytest.raises(ConfigError, match=refusal):
        DARTS(SearchContext(NoSupernet(), [Objective("accuracy")], 4, 1, 0))
    small_config["space"] = {"name": "peft-bert", "model": small_config["space"]["model"]}
    with pytest.raises(ConfigError, match="needs a space with a supernet, but PeftBert has none"):
        search(small_config, tmp_path / "run", inline=True)
    assert not (tmp_path / "run" / "journal.sqlite").exists()


@pytest.mark.parametrize("name", ["darts", "spos"])
def test_learners_that_are_not_metric_and_recipes_with_choices_are_refused(name, one_shot_config, tmp_path):
    one_shot_config["strategy"] = {"name": name, "steps": 2}
    one_shot_config["learner"] |= {"name": "maml"}
    del one_shot_config["learner"]["head"]
    refusal = f"strategy '{name}' trains its supernet with the loss of a metric learner, but MAML is not one"
    with pytest.raises(NasMetaError, match=refusal):
        search(one_shot_config, tmp_path / "maml", inline=True)
    one_shot_config["learner"] |= {"name": "protonet", "lr": {"choice": [1e-3, 1e-4]}}
    with pytest.raises(ConfigError, match=r"learner.lr is a choice, but a supernet is trained once"):
        search(one_shot_config, tmp_path / "choices", inline=True)


def test_enas_without_its_extra_is_a_sentence(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StrategyError, match=r"pip install 'nas-meta\[rl\]'"):
        ENAS(SearchContext(Planted(), [Objective("accuracy")], 4, 1, 0))
