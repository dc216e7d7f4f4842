"""Conditional, constrained and composed spaces: counted, walked through, drawn from and bred in as by brute force."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installed import TRIAL_STRATEGIES, marked
from landscapes import context, run
from pydantic import Field
from random_spaces import Free, composed, plain, spaces

from nas_meta import Choice, ComposedSpace, PluginOptions, SubSpace
from nas_meta.config.json_schema import schema
from nas_meta.config.plugin_trust import plugin_files, refuse_plugin_files
from nas_meta.config.resolved import read_config, resolve
from nas_meta.core import plugins
from nas_meta.core.objectives import Limit
from nas_meta.errors import ConfigError, PluginError
from nas_meta.space.wrappers import JointSpace, LimitedSpace
from nas_meta.testing import SpaceTests
from strategies.metanas.most_probable import most_probable
from strategies.one_shot.spos import crossover
from strategies.shared.unseen import neighbour

few = settings(max_examples=60, suppress_health_check=list(HealthCheck))
SEARCHES = [name for name in TRIAL_STRATEGIES if name not in ("rl", "auto")]  # rl is slow, auto is one of these


def items(architecture):
    return tuple(sorted(architecture.values.items()))


@few
@given(spaces)
def test_size_and_walk_are_those_of_brute_force(space):
    walked = [items(a) for a in space.walk()]
    assert len(walked) == len(set(walked)) == space.size()
    assert set(walked) == space.truth()


@few
@given(spaces, st.integers(0, 99))
def test_draws_mutations_and_crossings_are_in_the_space(space, seed):
    truth, rng = space.truth(), np.random.default_rng(seed)
    one, other = (space.sample(rng) for _ in range(2))
    assert items(one) in truth and space.architecture(one.values) == one
    for changes in (1, 2, 3):
        child = space.mutate(one, rng, changes)
        assert child is None or (items(child) in truth and child != one)
    child = crossover(space, one, other, rng)
    assert child is None or items(child) in truth
    near = neighbour(space, one, {one.id}, rng)
    assert (near is None) == (len(truth) == 1)
    assert near is None or (items(near) in truth and near != one)


@few
@given(spaces, st.integers(0, 99), st.integers(1, 20))
def test_the_most_probable_architectures_are_distinct_and_of_the_space(space, seed, count):
    rng = np.random.default_rng(seed)
    probabilities = {n: list(rng.dirichlet(np.ones(len(c.values)))) for n, c in space.table.items()}
    found = [items(a) for a in most_probable(space, probabilities, count, seed)]
    assert len(set(found)) == len(found) == min(count, len(space.truth()))
    assert set(found) <= space.truth()


@pytest.mark.parametrize("name", marked(SEARCHES, [name for name in SEARCHES if name != "surrogate"]))
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(spaces, st.integers(0, 99))
def test_every_strategy_proposes_all_of_the_space_once(name, space, seed):
    truth = space.truth()
    proposed = searched(name, space, len(truth) + 2, seed)
    assert len(proposed) == len(set(proposed)) and set(proposed) == truth


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SEARCHES, "auto"])
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(spaces, st.integers(0, 99))
def test_every_strategy_proposes_all_of_the_space_once_in_many_spaces(name, space, seed):
    truth = space.truth()
    assert sorted(searched(name, space, len(truth) + 2, seed)) == sorted(truth)


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(spaces, st.integers(0, 99))
def test_children_of_two_parents_are_in_the_space(space, seed):
    """NNI's own crossover, which knows of no conditions."""
    proposed = searched("evolution", space, 30, seed, population=4, crossover=True)
    assert len(proposed) == len(set(proposed)) == min(30, len(space.truth())) and set(proposed) <= space.truth()


def searched(name, space, trials, seed, **options):
    plugin = plugins.load("strategies", name)
    strategy = plugin(context(space, trials, seed), plugin.Options(**options))
    return [items(a) for a, _ in run(strategy, trials, lambda a: float(sum(a.values.values())), in_flight=2)]


@few
@given(plain(3))
def test_limits_and_recipes_are_counted_too(space):
    class Counted(type(space)):
        def counts(self, architecture, tokens):
            return {"params": sum(architecture.values.values())}

    inner = Counted(space.given, space.constraint)
    limited = LimitedSpace(inner, [Limit("params", None, 4)], 8)
    inside = {row for row in space.truth() if sum(dict(row).values()) <= 4}
    assert limited.size() == len(inside) and {items(a) for a in limited.walk()} == inside
    chosen = {"learner.name": Choice(("x", "y")), "learner.lr": Choice((1, 2), when={"learner.name": "y"})}
    joint = JointSpace(inner, chosen)
    walked = [items(a) for a in joint.walk()]
    assert len(set(walked)) == len(walked) == joint.size() == 3 * len(space.truth())
    rng = np.random.default_rng(0)
    assert all(items(joint.sample(rng)) in set(walked) for _ in range(5))


@few
@given(composed(), st.integers(0, 99))
def test_a_part_has_an_architecture_of_its_own_space(space, seed):
    architecture = space.sample(np.random.default_rng(seed))
    for name in space.present(architecture):
        own = space.part(architecture, name)
        assert items(own) in space.given[name].truth()
        assert {f"{name}.{n}": v for n, v in own.values.items()}.items() <= architecture.values.items()
    for name in set(space.spaces) - set(space.present(architecture)):
        assert not space.part(architecture, name).values


def test_depths_of_a_hundred_layers_are_counted_at_once():
    """Σ over depths d of 3^d, which no walk would reach the end of."""
    depths = tuple(range(1, 101))
    layers = {f"layer{i}": Choice((1, 2, 3), when={"depth": depths[i:]}) for i in range(100)}
    assert Free({"depth": Choice(depths), **layers}, (1, 0)).size() == sum(3**d for d in depths)


# What a plugin's author writes.
class PairOptions(PluginOptions):
    left: SubSpace = Field("bert-subnet", description="the left one")
    right: SubSpace = Field("bert-subnet", description="the right one")


class Pair(ComposedSpace):
    """The sum of two encoders; the right one is optional."""

    Options = PairOptions

    def own_choices(self):
        return {"both": [True, False]}

    def conditions(self):
        return {"right": {"both": True}}

    def build(self, architecture):
        from torch import nn

        class Sum(nn.Module):
            def __init__(self, models):
                super().__init__()
                self.models = nn.ModuleList(models)

            def forward(self, input_ids, attention_mask):
                return sum(m(input_ids, attention_mask).last_hidden_state for m in self.models)

        return Sum([self.build_part(architecture, name) for name in self.present(architecture)])


def small(tiny_model, **options):
    return {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0, 0.5], "ffn": [1.0], **options}


@pytest.fixture
def pair(tiny_model):
    return Pair(PairOptions(left=small(tiny_model), right=small(tiny_model, max_layers=1)))


class TestConformance(SpaceTests):
    @pytest.fixture(autouse=True)
    def _pair(self, pair):
        self.pair = pair

    def make_space(self):
        return self.pair


def test_two_encoders_are_counted_and_named_by_their_parts(pair, tiny_model):
    left, right = 2 * 2 + 2**2, 2 * 2  # of two layers one or both, of two sizes; one
    assert pair.size() == left * (right + 1) == len(list(pair.walk()))
    assert pair.tokenizer == str(tiny_model)
    assert pair.table["right.layer0.heads"].when == {"both": True, "right.layer0.keep": True}
    both = {"both": True, **{f"{p}.layer{i}.keep": True for p in ("left", "right") for i in (0, 1)}}
    sizes = {f"{p}.layer{i}.{n}": v for p in ("left", "right") for i in (0, 1) for n, v in (("heads", 4), ("ffn", 64))}
    with pytest.raises(ConfigError, match="right: it keeps 2 layers; expected 1 to 1"):
        pair.architecture({**both, **sizes})
    with pytest.raises(ConfigError, match="'lefft' is not a part of Pair; did you mean 'left'"):
        pair.part(pair.sample(np.random.default_rng(0)), "lefft")


def test_parameters_and_flops_are_sums_of_the_parts(pair):
    from nas_meta.models.profiling import flops, parameters

    for space in pair.spaces.values():
        space._config, weights = space._full.config, space._full.state_dict()
        space._weights = {name: tensor.numpy() for name, tensor in weights.items()}
    rng = np.random.default_rng(0)
    for _ in range(4):
        architecture = pair.sample(rng)
        model = pair.build(architecture)
        assert pair.counts(architecture, 7) == {"params": parameters(model), "flops": flops(model, 7)}


@pytest.mark.parametrize(
    ("left", "sentence"),
    [
        ("bert-subnett", "3: space.left: 'bert-subnett' is not an installed search space; did you mean 'bert-subnet'?"),
        ({"name": "bert-subnet", "hedas": [1.0]}, "5: 'space.left.hedas' is not a known key; did you mean 'heads'?"),
        (
            {"name": "bert-subnet", "min_layers": 0},
            "5: space.left.min_layers is 0; expected greater than or equal to 1",
        ),
        ({"heads": [1.0]}, "3: space.left: .* does not name a search space; expected a name, or a mapping"),
        (7, "3: space.left: 7 does not name a search space; expected a name, or a mapping with 'name:'"),
    ],
)
def test_a_wrong_part_is_a_sentence_with_file_line_and_key(tmp_path, left, sentence):
    import yaml

    file = tmp_path / "pair.yaml"
    file.write_text(yaml.safe_dump({"space": {"name": f"{__file__}:Pair", "left": left}}, sort_keys=False))
    with pytest.raises(ConfigError, match=f"pair.yaml:{sentence}"):
        read_config(file)


def test_the_document_holds_every_option_of_every_part(tiny_model):
    given = {"space": {"name": f"{__file__}:Pair", "left": small(tiny_model, max_layers=1)}}
    resolved = resolve(given)
    left, right = (resolved.document["space"][part] for part in ("left", "right"))
    assert left["max_layers"] == 1 and left["importance_episodes"] == 20 and right["name"] == "bert-subnet"
    assert resolve(resolved.document).document == resolved.document
    schema()


def test_plugin_files_within_options_are_asked_for_too(tmp_path):
    document = {"space": {"name": "tower", "text": {"name": "/elsewhere/evil.py:Space"}, "image": ["x.py:Y"]}}
    assert plugin_files(document) == {"/elsewhere/evil.py:Space", "x.py:Y"}
    with pytest.raises(PluginError, match=r"names the plugin file /elsewhere/evil.py:Space, whose code would be run"):
        refuse_plugin_files(document, tmp_path)


def test_parts_that_read_texts_differently_are_refused(tiny_model):
    with pytest.raises(ConfigError, match=r"different tokenizers .*left: .*, right: starter:minilm"):
        Pair(PairOptions(left=small(tiny_model)))
    with pytest.raises(ConfigError, match=r"space.left: space.heads has the share 2.0"):
        Pair(PairOptions(left=small(tiny_model, heads=[2.0]), right=small(tiny_model)))
