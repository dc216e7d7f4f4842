"""Layers that every architecture keeps, and the layers that a search begins with."""

import numpy as np
import pytest
from tiny_decoder import save_tiny

from nas_meta import SearchContext
from nas_meta.core.objectives import Limit, Objective
from nas_meta.errors import ConfigError
from nas_meta.space.wrappers import LimitedSpace
from search_spaces.pretrained.bert_subnet import BertSubnet, BertSubnetOptions
from search_spaces.pretrained.decoder_subnet import DecoderSubnet, DecoderSubnetOptions
from search_spaces.pretrained.layer_spread import spread_layers
from strategies.surrogate.surrogate import Surrogate

LAYERS = 6


@pytest.fixture
def encoder(tmp_path):
    """Folder of a BERT with six layers."""
    from transformers import BertConfig, BertModel

    size = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 40}
    BertModel(BertConfig(**size, num_hidden_layers=LAYERS)).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def bert(folder, **options):
    return BertSubnet(BertSubnetOptions(model=str(folder), heads=[1.0, 0.5], ffn=[1.0], **options))


def test_kept_layers_are_in_every_architecture(encoder):
    space, rng = bert(encoder, keep=[0, 5], min_layers=1, max_layers=4), np.random.default_rng(0)
    walked = list(space.walk())
    assert space.size() == len(walked) == 2**2 + 4 * 2**3 + 6 * 2**4
    assert all(space.kept_layers(a)[0] == 0 and space.kept_layers(a)[-1] == 5 for a in walked)
    parent = space.sample(rng)
    children = [c for _ in range(200) if (c := space.mutate(parent, rng, 3, tries=1)) is not None]
    for architecture in (parent, *children, *(space.sample(rng) for _ in range(50))):
        assert {0, 5} <= set(space.kept_layers(architecture))
    assert len({tuple(space.kept_layers(c)) for c in children}) > 3, "other layers still change"


def test_kept_layers_of_a_decoder_add_to_those_that_are_not_optional(tmp_path):
    save_tiny("gpt2", tmp_path)
    options = {"model": str(tmp_path), "groups": [1.0], "ffn": [1.0, 0.5]}
    space = DecoderSubnet(DecoderSubnetOptions(**options, optional=[0, 2], keep=[2]))
    assert space.fixed_layers == {1, 2}
    assert space.size() == len(list(space.walk())) == 2**2 + 2**3
    assert DecoderSubnet(DecoderSubnetOptions(**options, keep=[0])).fixed_layers == {0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": [0, 6]}, "space.keep has the layer 6; expected layers from 0 to 5"),
        ({"keep": [-1]}, "space.keep has the layer -1; expected layers from 0 to 5"),
        (
            {"keep": [0, 3, 5], "max_layers": 2},
            "space.keep has 3 layers, but space.max_layers is 2; expected at most 2",
        ),
    ],
)
def test_layers_that_cannot_be_kept_are_refused_with_a_sentence(encoder, options, words):
    with pytest.raises(ConfigError, match=words):
        bert(encoder, **options).size()


@pytest.mark.parametrize(
    ("count", "fixed", "expected"),
    [
        (1, (), [0]), (2, (), [0, 5]), (3, (), [0, 2, 5]), (4, (), [0, 2, 3, 5]), (6, (), [0, 1, 2, 3, 4, 5]),
        (4, (2,), [0, 2, 4, 5]), (3, (4,), [0, 4, 5]), (2, (1, 2), [1, 2]), (5, (1, 2), [0, 1, 2, 4, 5]),
    ],
)  # fmt: skip
def test_spread_layers_have_even_gaps_and_both_ends(count, fixed, expected):
    assert spread_layers(LAYERS, count, fixed) == expected


def test_any_number_of_layers_can_be_spread():
    for layers in (1, 2, 7, 30):
        for count in range(1, layers + 1):
            chosen = spread_layers(layers, count)
            assert len(set(chosen)) == count and chosen == sorted(chosen)
            gaps = np.diff(chosen)
            assert count < 2 or (chosen[-1] == layers - 1 and gaps.max() - gaps.min() <= 1)


def test_a_search_begins_with_layers_that_are_spread_over_the_depth(encoder):
    space = bert(encoder, min_layers=3, max_layers=4)
    context = SearchContext(space=space, objectives=[Objective("accuracy")], trials=16, workers=1, seed=0)
    strategy = Surrogate(context)
    first = [space.kept_layers(strategy.ask()) for _ in range(strategy.startup)]
    assert first[:2] == [[0, 2, 3, 5], [0, 2, 5]]
    assert len({tuple(layers) for layers in first[2:]} - {(0, 2, 3, 5), (0, 2, 5)}) > 0, "the others are random"


def test_the_first_architectures_meet_the_limits(encoder):
    space = bert(encoder, min_layers=2, max_layers=6)
    whole = space.count_params(space.canonical({n: c.values[0] for n, c in space.table.items()}))
    space._weights = {}  # as after prepare(): the space counts
    limited = LimitedSpace(space, [Limit("params", None, 0.8 * whole)], 32)
    context = SearchContext(space=limited, objectives=[Objective("accuracy")], trials=40, workers=1, seed=0)
    strategy = Surrogate(context)
    proposals = [strategy.ask() for _ in range(6)]
    assert max(space.count_params(a) for a in proposals) <= 0.8 * whole
    kept = [tuple(space.kept_layers(a)) for a in proposals]
    assert {(0, 5), (0, 2, 5), (0, 2, 3, 5)} <= set(kept), "the whole model is too large in any width"
