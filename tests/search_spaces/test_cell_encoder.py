"""Cells: a slice of the supernet is the stand-alone model, padding is silent, counts are exact, exports load."""

import itertools
from pathlib import Path

import pytest
import torch
from conformance import FixtureSpaceTests
from landscapes import context, run
from loaded_alone import output_alone
from two_texts import IDS, MASK, output, samples

from nas_meta import ChoiceLayer, ChoiceSupernet
from nas_meta.core import plugins
from nas_meta.errors import ConfigError
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import flops, parameters
from search_spaces.cell.cell_encoder import CellEncoder, CellEncoderOptions
from strategies.metanas.most_probable import most_probable

SMALL = {"layers": 3, "heads": [2, 4], "kernels": [3, 5], "gated": [1.5], "ffn": [0.5, 2.0]}


@pytest.fixture
def space(tiny_model):
    return CellEncoder(CellEncoderOptions(model=str(tiny_model), **SMALL))


def chain(space, *operations):
    """Layers one after the other, each added to its own input."""
    values = {f"layer{i}.op": op for i, op in enumerate(operations)}
    states = {f"layer{i}.{part}": i for i in range(1, len(operations)) for part in ("input", "add")}
    return space.canonical({**values, **states})


class TestConformance(FixtureSpaceTests):
    """The fixture ``space`` passes the checks of search spaces."""


def test_a_slice_of_the_supernet_is_the_stand_alone_model(space):
    torch.manual_seed(0)
    supernet = space.supernet()
    for parameter in supernet.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for architecture in samples(space, 12):
        supernet.select(architecture)
        model, built = supernet.extract(architecture), space.build(architecture)
        torch.testing.assert_close(output(model), output(supernet), atol=1e-5, rtol=1e-5)
        shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (model, built)]
        assert shapes[0] == shapes[1]
        assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in supernet.parameters()}


def test_every_architecture_is_in_the_supernet_once(space):
    supernet = space.supernet()
    layers = [c for _, c in supernet.containers() if isinstance(c, ChoiceLayer)]
    assert [layer.name for layer in layers] == ["layer0.op", "layer1.op", "layer2.op"]
    assert all(layer.values == space.operations and len(layer) == 8 for layer in layers)
    assert {c.name: c.values for _, c in supernet.containers()} == {n: tuple(c.values) for n, c in space.table.items()}


@pytest.mark.parametrize("operation", ["attention-2", "convolution-5", "gated-mlp-1.5", "feed-forward-2"])
def test_padding_changes_nothing(space, operation):
    model = space.build(chain(space, operation, "convolution-3", operation))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    alone = output(model, IDS[1:, :3], MASK[1:, :3])
    torch.testing.assert_close(output(model)[1:, :3], alone, atol=1e-5, rtol=1e-5)
    other = IDS.clone()
    other[1, 3:] = 17  # what stands in the padding is not read
    torch.testing.assert_close(output(model, other)[1:, :3], alone, atol=1e-5, rtol=1e-5)


def test_wiring_is_what_the_architecture_says(space):
    """state1 = s0 + A(s0), state2 = s0 + B(s1), state3 = s2 + C(s1); the output is the norm of state 3."""
    values = {
        "layer0.op": "attention-4", "layer1.op": "convolution-3", "layer1.input": 1, "layer1.add": 0,
        "layer2.op": "gated-mlp-1.5", "layer2.input": 1, "layer2.add": 2,
    }  # fmt: skip
    model = space.build(space.architecture(values)).eval()
    seen = MASK.bool()
    with torch.no_grad():
        a, b, c = (layer.operation for layer in model.layers)
        s0 = model.norm(model.words(IDS) + model.positions(torch.arange(5)))
        s1 = s0 + a(s0, seen)
        expected = model.last_norm(s0 + b(s1, seen) + c(s1, seen))
    torch.testing.assert_close(output(model), expected)


def test_embeddings_without_layers_are_those_of_the_pretrained_model(space, tiny_model):
    from transformers import AutoModel

    pretrained = AutoModel.from_pretrained(tiny_model).eval()
    model = space.build(chain(space, "identity", "identity", "identity"))
    with torch.no_grad():
        expected = torch.nn.functional.layer_norm(pretrained.embeddings(IDS), (32,))
    torch.testing.assert_close(output(model), expected, atol=1e-5, rtol=1e-5)


def test_counts_are_those_of_the_built_model(space):
    assert space.counts(chain(space, "identity", "identity", "identity"), 9) == {}  # not known before prepare
    space.prepare(None, 0)
    for architecture in [*samples(space, 12), chain(space, *["gated-mlp-1.5"] * 3)]:
        model = space.build(architecture)
        assert space.counts(architecture, 9) == {"params": parameters(model), "flops": flops(model, 9)}


def test_parameters_equal_a_count_by_hand(space):
    h, words, positions = 32, 29, 64
    convolution = 2 * h + (3 * h + h) + (h * h + h)
    attention = 2 * h + 4 * (h * h + h)
    by_hand = (words + positions) * h + 2 * h + attention + convolution + 2 * h
    assert parameters(space.build(chain(space, "attention-2", "convolution-3", "identity"))) == by_hand


def test_a_layer_that_nothing_reads_has_to_be_the_identity(space):
    values = {**chain(space, "attention-2", "attention-2", "attention-2").values, "layer2.input": 1, "layer2.add": 1}
    with pytest.raises(ConfigError, match="nothing reads layer 1; expected identity as its operation"):
        space.architecture(values)
    allowed = space.architecture({**values, "layer1.op": "identity"})
    assert "layer1.input" not in allowed.values  # the identity reads nothing


def test_wirings_that_read_an_identity_are_mapped_to_what_it_passes_on(space):
    values = {
        "layer0.op": "identity", "layer1.op": "attention-2", "layer1.input": 1, "layer1.add": 0,
        "layer2.op": "identity", "layer2.add": 2,
    }  # fmt: skip
    first = space.architecture({**values, "layer1.input": 0})
    assert space.architecture(values) == space.architecture({**values, "layer1.add": 1}) == first
    # What an identity that nothing reads is added to makes no difference.
    unread = {
        "layer0.op": "attention-2", "layer1.op": "identity",
        "layer2.op": "convolution-3", "layer2.input": 1, "layer2.add": 0,
    }  # fmt: skip
    one, other = (space.architecture({**unread, "layer1.add": add}) for add in (0, 1))
    assert one == other and one["layer1.add"] == 0


def test_a_layer_behind_an_identity_that_passes_it_over_has_no_effect(space):
    """Layer 2 passes on state 0: the output knows nothing of layer 1, whose state would come next."""
    values = {"layer0.op": "identity", "layer1.op": "attention-2", "layer1.input": 0, "layer1.add": 0}
    with pytest.raises(ConfigError, match="nothing reads layer 1"):
        space.architecture({**values, "layer2.op": "identity", "layer2.add": 0})


@pytest.mark.parametrize("operations", [{"heads": [2]}, {"heads": [2], "kernels": [3]}])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_architecture_is_another_function(tiny_model, operations, layers):
    """Written out as a formula, every wiring without an idle layer is one that the space has, once; none is missing."""
    none = {"heads": [], "kernels": [], "gated": [], "ffn": []}
    space = CellEncoder(CellEncoderOptions(model=str(tiny_model), layers=layers, **(none | operations)))

    def formula(values):
        """The output as a sum of sums, and the layers in it: s0, or (a, layer, operation, b) for a + operation(b)."""
        states, parts = [("s0", frozenset())], range(layers)
        for i in parts:
            a, b = (states[values.get(f"layer{i}.{part}", i)] for part in ("add", "input"))
            op = values[f"layer{i}.op"]
            states.append(a if op == "identity" else ((a[0], i, op, b[0]), a[1] | b[1] | {i}))
        return states[-1]

    rows = [
        dict(zip(space.table, row, strict=True)) for row in itertools.product(*(c.values for c in space.table.values()))
    ]
    busy = [
        row for row in rows if len(formula(row)[1]) == sum(row[f"layer{i}.op"] != "identity" for i in range(layers))
    ]
    walked = list(space.walk())
    assert {formula(a.values)[0] for a in walked} == {formula(row)[0] for row in busy}
    assert len({formula(row)[0] for row in busy}) == len(walked) == space.size()
    assert all(formula(space.architecture(row).values) == formula(row) for row in busy)


def test_strategies_propose_no_model_of_cells_twice(tiny_model):
    options = {"heads": [2], "kernels": [], "gated": [], "ffn": [], "layers": 3}
    space = CellEncoder(CellEncoderOptions(model=str(tiny_model), **options))
    everything = {a.id for a in space.walk()}
    for name in ("random", "evolution", "grid", "nsga2"):
        strategy = plugins.load("strategies", name)(context(space, 40))
        done = [a.id for a, _ in run(strategy, 40, lambda a: float(len(space.used_layers(a))), in_flight=2)]
        assert len(done) == len(everything) == 30 and set(done) == everything, name


def test_the_most_probable_cells_are_the_ones_that_represent_them(tiny_model):
    """Layer 1 surely reads state 1, which layer 0, surely an identity, makes the embeddings."""
    options = {"heads": [2], "kernels": [3], "gated": [], "ffn": [], "layers": 2}
    space = CellEncoder(CellEncoderOptions(model=str(tiny_model), **options))
    sure = {"layer0.op": [0.1, 0.1, 0.8], "layer1.op": [0.8, 0.1, 0.1]}
    probabilities = {**sure, "layer1.input": [0.2, 0.8], "layer1.add": [0.3, 0.7]}
    found = most_probable(space, probabilities, 100, 0)
    assert dict(found[0].values) == {
        "layer0.op": "identity", "layer1.op": "attention-2", "layer1.input": 0, "layer1.add": 0,
    }  # fmt: skip
    assert {a.id for a in found} == {a.id for a in space.walk()} and len(found) == space.size()


def test_only_the_layers_and_norms_learn_unless_the_tables_are_asked_for(space):
    model = space.build(chain(space, "feed-forward-2", "identity", "identity"))
    tables = model.words.weight.numel() + model.positions.weight.numel()
    learning = [sum(p.numel() for p in Encoder(model).body_parameters(tables_too)) for tables_too in (False, True)]
    assert learning == [parameters(model) - tables, parameters(model)]


@pytest.mark.slow
def test_an_export_loads_with_transformers_alone_and_gives_the_same_output(space, tmp_path):
    architecture = samples(space, 1)[0]
    model = space.build(architecture)
    space.save(model, architecture, tmp_path / "model")
    ids = torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]])
    states = output_alone(tmp_path / "model", ids, (ids > 0).long(), "last_hidden_state", tmp_path)
    torch.testing.assert_close(states, output(model), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output(space.load(tmp_path / "model").eval()), output(model), atol=1e-5, rtol=1e-5)
    assert type(space.load(Path(space.options.model))).__name__ == "BertModel"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernels": [4]}, "space.kernels has 4; expected odd integers"),
        ({"ffn": [0.0]}, "space.ffn has 0.0; expected multiples above 0"),
        ({"heads": [5]}, "space.heads has 5; expected divisors of 32"),
    ],
)
def test_wrong_options_are_sentences(tiny_model, options, words):
    with pytest.raises(ConfigError, match=words):
        CellEncoder(CellEncoderOptions(model=str(tiny_model), **options)).prepare(None, 0)


def test_a_supernet_whose_names_are_not_the_models_is_refused(space):
    """extract() loads strictly: a space author who names a part differently hears of it."""
    architecture = samples(space, 1)[0]
    wrong = ChoiceSupernet(space.supernet().model, lambda a: torch.nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match="Missing key"):
        wrong.extract(architecture)
