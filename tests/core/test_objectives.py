"""Objectives: directions, limits, Pareto fronts and hypervolume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_meta.config.problem import load_problem, load_tasks, make_space, prepare_space
from nas_meta.config.resolved import resolve
from nas_meta.controller.launch import search
from nas_meta.core.objectives import Limit, Objective, front_ranks, hypervolume, pareto_front, signed_values
from nas_meta.errors import ConfigError
from nas_meta.models.profiling import flops, parameters

points = st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=12).map(lambda p: np.array(p, dtype=float))


def test_a_metric_gets_its_direction_its_reference_and_its_limits():
    config = resolve(
        {
            "objectives": {
                "accuracy": "maximize",
                "flops": {"direction": "minimize", "reference": 4e8},
                "params": {"max": "16e6"},
                "peak_memory": {"direction": "minimize", "max": 1e9},
            }
        }
    ).sections
    assert config.optimised == [
        Objective("accuracy"), Objective("flops", "minimize", 4e8), Objective("peak_memory", "minimize"),
    ]  # fmt: skip
    assert config.limits == [Limit("params", None, 16e6), Limit("peak_memory", None, 1e9)]
    assert signed_values({"accuracy": 0.5, "flops": 3.0, "peak_memory": 1.0}, config.optimised) == (0.5, -3.0, -1.0)


@pytest.mark.parametrize(
    ("objectives", "words"),
    [
        ({"acuracy": "maximize"}, "no trial measures 'acuracy'; did you mean 'accuracy'"),
        ({"accuracy": "up"}, "objectives"),
        ({"params": {"max": 1e6, "direction": "none"}}, "no metric has a direction"),
        ([], "objectives"),
    ],
)
def test_invalid_objectives_are_refused_with_a_sentence(objectives, words):
    with pytest.raises(ConfigError, match=words):
        resolve({"objectives": objectives})


@pytest.mark.parametrize(
    ("objectives", "overrides"),
    [
        ({"flops": {"max": 4e8}, "params": {"max": 16e6}}, []),
        ([{"metric": "flops", "max": 4e8}, {"metric": "params", "max": 16e6}], []),
        (None, ["objectives.flops.max=4e8", "objectives.params.max=16e6"]),
    ],
)
def test_limits_alone_add_to_the_default_objectives(objectives, overrides):
    config = resolve({} if objectives is None else {"objectives": objectives}, overrides=overrides)
    assert config.sections.optimised == [Objective("accuracy"), Objective("flops", "minimize")]
    assert config.sections.limits == [Limit("flops", None, 4e8), Limit("params", None, 16e6)]
    assert resolve(config.document).document == config.document


def test_the_fronts_of_five_points():
    values = np.array([[3, 1], [1, 3], [2, 2], [1, 1], [0, 2]], dtype=float)
    assert front_ranks(values).tolist() == [0, 0, 0, 1, 1]
    assert front_ranks(np.array([[1.0, 1.0], [1.0, 1.0]])).tolist() == [0, 0]


def test_hypervolume_equals_a_hand_calculation():
    """In the plane, three rectangles with a union of 3·1 + 2·1 + 1·1; in space, two boxes of 4 and 2 that share 1."""
    assert hypervolume(np.array([[3, 1], [2, 2], [1, 3], [-1, 9]]), np.zeros(2)) == 6
    assert hypervolume(np.array([[2, 2, 1], [1, 1, 2]]), np.zeros(3)) == 5
    assert hypervolume(np.array([[4.0]]), np.array([1.0])) == 3
    assert hypervolume(np.zeros((0, 2)), np.zeros(2)) == 0


@given(points)
def test_hypervolume_counts_the_unit_cells_that_are_dominated(values):
    cells = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1).reshape(-1, 1, 3) + 1
    assert hypervolume(values, np.zeros(3)) == (values[None] >= cells).all(-1).any(1).sum()


@given(points, st.integers(1, 3))
def test_a_front_dominates_the_next_one_but_not_itself(points, objectives):
    values = points[:, :objectives]
    ranks = front_ranks(values)
    assert pareto_front(values).tolist() == np.flatnonzero(ranks == 0).tolist()
    for value, rank in zip(values, ranks, strict=True):
        dominating_ranks = [r for v, r in zip(values, ranks, strict=True) if (v >= value).all() and (v > value).any()]
        assert rank not in dominating_ranks
        assert rank == 0 or rank - 1 in dominating_ranks


def test_counts_of_a_space_equal_those_of_built_models(small_config):
    resolved = resolve(small_config)
    space = make_space(resolved)
    assert space.counts(space.sample(np.random.default_rng(0)), 16) == {}, "counts need the prepared space"
    prepare_space(space, load_tasks(resolved, space), 0)
    for seed in range(6):
        architecture = space.sample(np.random.default_rng(seed))
        model = space.build(architecture)
        assert space.counts(architecture, 16) == {"params": parameters(model), "flops": flops(model, 16)}


def test_an_architecture_over_a_limit_is_never_tried(small_config, tmp_path):
    resolved = resolve(small_config)
    space, _, _ = load_problem(resolved)
    tokens = resolved.sections.evaluation.flops_tokens
    sizes = [space.counts(space.sample(np.random.default_rng(s)), tokens)["params"] for s in range(40)]
    limit = float(np.median(sizes))
    small_config["objectives"] = {"accuracy": "maximize", "params": {"max": limit}}
    run = search(small_config, tmp_path / "run", inline=True)
    assert {t.status for t in run.trials} == {"completed"}
    assert max(t.metrics["params"] for t in run.trials) <= limit < max(sizes)


def test_a_model_over_a_limit_fails_its_trial_before_training(small_config, tmp_path):
    """If a space has no ``counts``, the built model is measured before it is trained."""
    plugin = tmp_path / "plain.py"
    plugin.write_text(
        "from transformers import BertConfig, BertModel\n"
        "from nas_meta import SearchSpace\n"
        "class Plain(SearchSpace):\n"
        f"    tokenizer = {small_config['space']['model']!r}\n"
        "    def choices(self):\n"
        "        return {'width': [8, 64]}\n"
        "    def build(self, a):\n"
        "        return BertModel(BertConfig(vocab_size=40, hidden_size=a['width'], num_hidden_layers=1,\n"
        "                                    num_attention_heads=2, intermediate_size=16))\n"
    )
    small_config["space"] = {"name": f"{plugin}:Plain"}
    small_config["strategy"] = {"name": "grid"}
    small_config["objectives"] = {"accuracy": "maximize", "params": {"max": 20_000}}
    run = search(small_config, tmp_path / "run", inline=True)
    assert {t.architecture["width"]: t.status for t in run.trials} == {8: "completed", 64: "failed"}
    failed = next(t for t in run.trials if t.status == "failed")
    assert failed.error.startswith("it violates a limit of the objectives: its params is ")
    assert failed.error.endswith("expected at most 20,000")


def test_limits_that_no_architecture_meets_are_refused_before_training(small_config, tmp_path):
    small_config["objectives"] = {"accuracy": "maximize", "params": {"max": 10}}
    with pytest.raises(ConfigError, match=r"none of 1000 random .* meets the limits .* expected at most 10"):
        search(small_config, tmp_path / "run", inline=True)
    assert not (tmp_path / "run" / "journal.sqlite").exists()
