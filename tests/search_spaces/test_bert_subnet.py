"""Sub-networks are cut for real, counted by hand, and the whole one is the original."""

import pickle

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)  # fmt: skip
from two_texts import output

from nas_meta.errors import ConfigError
from nas_meta.models.families import family_of
from nas_meta.models.profiling import flops, parameters
from nas_meta.space.architecture import Choice
from search_spaces.pretrained.base import strongest, unit_counts
from search_spaces.pretrained.bert_subnet import BertSubnet, BertSubnetOptions
from search_spaces.slicing import layers_of, parts_of, widths

H, HEADS, F, L = 32, 4, 64, 2


def pretrained(family, folder):
    torch.manual_seed(1)
    size = {"vocab_size": 40, "max_position_embeddings": 40}
    shape = {"hidden_size": H, "num_hidden_layers": L, "num_attention_heads": HEADS, "intermediate_size": F}
    model = {
        "bert": lambda: BertModel(BertConfig(**size, **shape)),
        "roberta": lambda: RobertaModel(RobertaConfig(**size, **shape, pad_token_id=0)),
        "distilbert": lambda: DistilBertModel(DistilBertConfig(**size, dim=H, n_layers=L, n_heads=HEADS, hidden_dim=F)),
    }[family]()  # fmt: skip
    for p in model.parameters():  # biases start at zero, which would hide mistakes
        torch.nn.init.normal_(p, std=0.3)
    model.save_pretrained(folder)
    return model.eval()


def space_of(folder, **options):
    return BertSubnet(
        BertSubnetOptions(model=str(folder), **{"heads": [1.0, 0.5, 0.25], "ffn": [1.0, 0.25], **options})
    )


def everything(space):
    return space.architecture({n: c.values[0] for n, c in space.table.items()})


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_full_architecture_is_the_original_exactly(family, tmp_path):
    original = pretrained(family, tmp_path)
    space = space_of(tmp_path)
    assert torch.equal(output(space.build(everything(space))), output(original))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_cut_model_equals_the_original_with_units_silenced(family, tmp_path):
    """Zeroing the columns behind absent heads and neurons in the original gives the cut model's output."""
    original = pretrained(family, tmp_path)
    space = space_of(tmp_path)
    values = dict(everything(space).values) | {"layer0.heads": 2, "layer0.ffn": 16, "layer1.heads": 1}
    cut = space.build(space.architecture(values))
    for layer, heads, neurons in zip(layers_of(original), (2, 1), (16, 64), strict=True):
        parts = parts_of(layer, family_of(original.config))
        with torch.no_grad():
            parts.outward.weight[:, heads * parts.head_size :] = 0
            parts.down.weight[:, neurons:] = 0
    assert widths(cut) == [(2, 1, 16), (1, 1, 64)]
    torch.testing.assert_close(output(cut), output(original), atol=1e-5, rtol=1e-5)


def test_parameters_and_flops_equal_a_count_by_hand(tiny_model):
    space = space_of(tiny_model)
    values = {"layer0.keep": False, "layer1.keep": True, "layer1.heads": 2, "layer1.ffn": 16}
    architecture = space.architecture(values)
    model = space.build(architecture)
    vocabulary, positions, size = model.config.vocab_size, 64, H // HEADS
    kept = 2 * size
    layer = 3 * (H * kept + kept) + (kept * H + H) + 2 * H + (H * 16 + 16) + (16 * H + H) + 2 * H
    by_hand = (vocabulary + positions + 2) * H + 2 * H + layer + (H * H + H)
    assert parameters(model) == by_hand
    space._weights = {n: t.numpy() for n, t in AutoModel.from_pretrained(tiny_model).state_dict().items()}
    assert space.count_params(architecture) == by_hand
    t = 10
    matrices = 4 * t * H * kept + 2 * t * t * kept + 2 * t * H * 16 + H * H  # multiply-adds; the pooler sees one token
    assert flops(model, t) == 2 * matrices


def test_the_number_of_architectures_equals_enumeration(tiny_model):
    space = space_of(tiny_model)
    rng = np.random.default_rng(0)
    assert space.size() == 2 * 6 + 6**2 == len({space.sample(rng) for _ in range(4000)})


def test_the_most_important_units_are_kept():
    assert strongest(np.array([0.1, 0.9, 0.5, 0.9]), 2).tolist() == [1, 3]
    assert unit_counts([1.0, 0.5, 0.01], 12) == (12, 6, 1)


def test_importance_is_the_taylor_score_of_each_unit(tiny_model, labelled_texts):
    """|a · ∂L/∂a| of a head equals |L(gate=1+ε) - L(gate=1-ε)| / 2ε summed over texts, for one text at a time."""
    from nas_meta.learners.protonet import ProtoNet
    from nas_meta.tasks.episodes import EpisodeShape, episode
    from nas_meta.tasks.sources.files import FileOptions, JSONLines
    from nas_meta.tasks.tokenization import load_tasks, load_tokenizer
    from search_spaces.pretrained.importance import importance

    tasks = load_tasks(JSONLines(FileOptions(path=labelled_texts)), load_tokenizer(str(tiny_model)), 16)
    pool = tasks["meta-train"]
    model = AutoModel.from_pretrained(tiny_model).double()
    heads, neurons = importance(model, pool, 1, 7)
    assert heads.shape == (2, 4) and neurons.shape == (2, 64)
    np.testing.assert_allclose(np.linalg.norm(heads, axis=1), 1, rtol=1e-5)
    from nas_meta.models.encoder import Encoder

    task = episode(pool, EpisodeShape(5, 1, 1), 7, 0)
    encoder, gate, text = Encoder(model), {}, {}
    encoder.one_text_a_row = True

    def scale(_module, inputs):
        x = inputs[0].clone()
        rows = text["batch"]
        for row, index in enumerate(rows):
            if index == gate.get("text"):
                x[row, :, gate["head"] * 8 : gate["head"] * 8 + 8] *= gate["value"]
        return (x,)

    padded = type(pool).batch

    def remember(self, indices):
        text["batch"] = list(indices)
        return padded(self, indices)

    handle = parts_of(layers_of(model)[0], family_of(model.config)).outward.register_forward_pre_hook(scale)
    type(pool).batch = remember
    try:
        expected = np.zeros(4)
        for head in range(4):
            for index in task.indices:
                losses = []
                for value in (1 + 1e-4, 1 - 1e-4):
                    gate.update(text=index, head=head, value=value)
                    losses.append(ProtoNet().meta_loss(encoder, pool, task).item())
                expected[head] += abs(losses[0] - losses[1]) / 2e-4
    finally:
        type(pool).batch = padded
        handle.remove()
    np.testing.assert_allclose(heads[0], expected / np.linalg.norm(expected), rtol=1e-3)


def test_constraints_and_wrong_options_are_sentences(tiny_model):
    space = space_of(tiny_model, max_layers=1)
    with pytest.raises(ConfigError, match="keeps 2 layers; expected 1 to 1"):
        everything(space)
    with pytest.raises(ConfigError, match=r"space.heads has the share 1.5"):
        space_of(tiny_model, heads=[1.5])
    with pytest.raises(ConfigError, match="neither a folder"):
        space_of("no/such-model").choices()
    assert isinstance(space.table["layer0.heads"], Choice)


def episodes_of(tiny_model, labelled_texts):
    from nas_meta.tasks.sources.files import FileOptions, JSONLines
    from nas_meta.tasks.tokenization import load_tasks, load_tokenizer

    return load_tasks(JSONLines(FileOptions(path=labelled_texts)), load_tokenizer(str(tiny_model)), 16)


def test_wandas_importance_equals_weights_times_activations_by_hand(tiny_model, labelled_texts):
    """|W|·‖X‖₂, X as the model's own parts compute it, text by text; a head has the sum of its eight columns."""
    from nas_meta.tasks.episodes import EpisodeShape, episodes
    from search_spaces.pretrained.importance import importance

    pool = episodes_of(tiny_model, labelled_texts)["meta-train"]
    model = AutoModel.from_pretrained(tiny_model).eval()
    heads, neurons = importance(model, pool, 2, 7, "wanda")
    texts = sorted({i for task in episodes(pool, EpisodeShape(5, 1, 1), 7, 2) for i in task.indices})
    layer = model.encoder.layer[0]
    context, inner = torch.zeros(H), torch.zeros(F)
    with torch.no_grad():
        for index in texts:
            ids = torch.from_numpy(pool.batch(np.array([index]))[0])
            states = model.embeddings(input_ids=ids)
            attended = layer.attention.self(states)[0]
            context += attended.square().sum((0, 1))
            inner += layer.intermediate(layer.attention(states)[0]).square().sum((0, 1))
        columns = layer.attention.output.dense.weight.abs().sum(0) * context.sqrt()
        by_hand = np.array([columns[8 * h : 8 * h + 8].sum() for h in range(HEADS)])
        of_neurons = (layer.output.dense.weight.abs().sum(0) * inner.sqrt()).numpy()
    np.testing.assert_allclose(heads[0], by_hand / np.linalg.norm(by_hand), rtol=1e-4)
    np.testing.assert_allclose(neurons[0], of_neurons / np.linalg.norm(of_neurons), rtol=1e-4)


def test_the_importance_by_magnitude_is_the_norm_of_what_goes_with_a_unit(tiny_model, labelled_texts):
    from search_spaces.pretrained.importance import importance

    pool = episodes_of(tiny_model, labelled_texts)["meta-train"]
    model = AutoModel.from_pretrained(tiny_model)
    heads, neurons = importance(model, pool, 1, 0, "magnitude")
    layer = model.encoder.layer[1]
    weights = {n: p.detach().numpy() for n, p in layer.named_parameters()}
    squares = [0.0] * HEADS
    for head in range(HEADS):
        mine = slice(8 * head, 8 * head + 8)
        for name in ("query", "key", "value"):
            squares[head] += (weights[f"attention.self.{name}.weight"][mine] ** 2).sum()
        squares[head] += (weights["attention.output.dense.weight"][:, mine] ** 2).sum()
    np.testing.assert_allclose(heads[1], np.sqrt(squares) / np.sqrt(np.sum(squares)), rtol=1e-5)
    own = [
        (weights["intermediate.dense.weight"][n] ** 2).sum() + (weights["output.dense.weight"][:, n] ** 2).sum()
        for n in range(F)
    ]
    np.testing.assert_allclose(neurons[1], np.sqrt(own) / np.sqrt(np.sum(own)), rtol=1e-5)


@pytest.mark.parametrize("importance", ["taylor", "wanda", "magnitude"])
def test_a_space_keeps_the_units_that_its_importance_ranks_first(importance, tiny_model, labelled_texts):
    space = space_of(tiny_model, importance=importance)
    space.prepare(episodes_of(tiny_model, labelled_texts), 0)
    values = dict(everything(space).values) | {"layer0.heads": 1}
    cut = space.build(space.architecture(values))
    best = int(np.argmax(space._scores[0][0]))
    whole = AutoModel.from_pretrained(tiny_model).encoder.layer[0].attention.self.query.weight
    assert torch.equal(cut.encoder.layer[0].attention.self.query.weight, whole[8 * best : 8 * best + 8])


def test_with_bins_small_and_large_sub_networks_are_met_as_often_as_others(tiny_model, labelled_texts):
    """Uniform choices leave the ends nearly empty; with bins every quarter of the sizes has a quarter of the draws."""
    tasks, options = episodes_of(tiny_model, labelled_texts), {"heads": [1.0, 0.75, 0.5, 0.25]}
    widths_ = {"ffn": [1.0, 0.8, 0.6, 0.4, 0.2]}
    space, even = space_of(tiny_model, **options, **widths_, bins=4), space_of(tiny_model, **options, **widths_)
    for one in (space, even):
        one.prepare(tasks, 0)
    smallest = {"layer0.keep": True, "layer1.keep": False, "layer0.heads": 1, "layer0.ffn": 13}
    assert space.bin_edges[0] == space.count_params(space.architecture(smallest))
    assert space.bin_edges[-1] == space.count_params(everything(space))

    def shares(drawn):
        sizes = [space.count_params(drawn.sample(rng)) for _ in range(400)]
        return np.histogram(sizes, space.bin_edges)[0] / 400

    rng = np.random.default_rng(0)
    assert shares(even).min() < 0.12
    assert np.abs(shares(space) - 0.25).max() < 0.08
    assert space.sample(np.random.default_rng(5)) == space.sample(np.random.default_rng(5))


def test_bins_keep_the_constraints_and_random_search_follows_them(tiny_model, labelled_texts):
    from nas_meta import Objective, SearchContext
    from nas_meta.core import plugins
    from nas_meta.core.objectives import Limit
    from nas_meta.space.wrappers import LimitedSpace

    space = space_of(tiny_model, heads=[1.0, 0.75, 0.5, 0.25], ffn=[1.0, 0.8, 0.6, 0.4, 0.2], min_layers=2, bins=4)
    space.prepare(episodes_of(tiny_model, labelled_texts), 0)
    limited = LimitedSpace(space, [Limit("params", None, space.bin_edges[3])], 16)
    rng = np.random.default_rng(1)
    assert all(len(a.values) == 6 and limited.problem(a) is None for a in (limited.sample(rng) for _ in range(50)))
    strategy = plugins.load("strategies", "random")(SearchContext(space, [Objective("accuracy")], 80, 1, 0))
    try:
        found = [space.count_params(strategy.ask()) for _ in range(80)]
    finally:
        strategy.close()
    assert np.histogram(found, space.bin_edges)[0].min() >= 8


def test_a_worker_that_rebuilds_the_model_draws_the_same_random_numbers(tiny_model, labelled_texts):
    space = space_of(tiny_model, importance="magnitude")
    space.prepare(episodes_of(tiny_model, labelled_texts), 0)
    worker = pickle.loads(pickle.dumps(space))
    state = torch.get_rng_state()
    worker.supernet()
    assert torch.equal(torch.get_rng_state(), state)
