"""Sub-networks are cut for real, counted by hand, and the whole one is the original."""

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

from nas_meta.errors import ConfigError
from nas_meta.measures import flops, parameters
from nas_meta.space import Choice
from search_spaces.bert_subnet import BertSubnet, BertSubnetOptions, counts, strongest
from search_spaces.slicing import load_sliced, widths

H, HEADS, F, L = 32, 4, 64, 2
IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]])
MASK = (IDS > 0).long()


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


def output(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=MASK).last_hidden_state


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_full_architecture_is_the_original_exactly(family, tmp_path):
    original = pretrained(family, tmp_path)
    space = space_of(tmp_path)
    assert torch.equal(output(space.build(everything(space))), output(original))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_cut_model_equals_the_original_with_units_silenced(family, tmp_path):
    """Zeroing the columns behind absent heads and neurons in the original gives the cut model's output."""
    from search_spaces.slicing import layers_of, parts_of

    original = pretrained(family, tmp_path)
    space = space_of(tmp_path)
    values = dict(everything(space).values) | {"layer0.heads": 2, "layer0.ffn": 16, "layer1.heads": 1}
    cut = space.build(space.architecture(values))
    for layer, heads, neurons in zip(layers_of(original), (2, 1), (16, 64), strict=True):
        parts = parts_of(layer)
        with torch.no_grad():
            parts.outward.weight[:, heads * parts.head_size :] = 0
            parts.down.weight[:, neurons:] = 0
    assert widths(cut) == [(2, 16), (1, 64)]
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
    assert counts([1.0, 0.5, 0.01], 12) == (12, 6, 1)


def test_importance_is_the_taylor_score_of_each_unit(tiny_model, labelled_texts):
    """|a · ∂L/∂a| of a head equals |L(gate=1+ε) - L(gate=1-ε)| / 2ε summed over texts, for one text at a time."""
    from nas_meta.learners.protonet import ProtoNet
    from nas_meta.tasks.episodes import EpisodeShape, episode
    from nas_meta.tasks.files import FileOptions, JSONLines
    from nas_meta.tasks.tokens import load_tasks, load_tokenizer
    from search_spaces.importance import importance
    from search_spaces.slicing import layers_of, parts_of

    tasks = load_tasks(JSONLines(FileOptions(path=labelled_texts)), load_tokenizer(str(tiny_model)), 16)
    pool = tasks["meta-train"]
    model = AutoModel.from_pretrained(tiny_model).double()
    heads, neurons = importance(model, pool, 1, 7)
    assert heads.shape == (2, 4) and neurons.shape == (2, 64)
    np.testing.assert_allclose(np.linalg.norm(heads, axis=1), 1, rtol=1e-5)
    from nas_meta.embedding import Encoder

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

    handle = parts_of(layers_of(model)[0]).outward.register_forward_pre_hook(scale)
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


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_an_exported_model_loads_anywhere_with_the_same_output(family, tmp_path):
    pretrained(family, tmp_path / "original")
    space = space_of(tmp_path / "original")
    values = dict(everything(space).values) | {"layer0.heads": 2, "layer0.ffn": 16, "layer1.ffn": 16}
    architecture = space.architecture(values)
    model = space.build(architecture)
    space.save(model, architecture, tmp_path / "exported")
    loaded = AutoModel.from_pretrained(tmp_path / "exported")
    torch.testing.assert_close(output(loaded), output(model), atol=1e-5, rtol=1e-5)
    small = load_sliced(tmp_path / "exported")
    torch.testing.assert_close(output(small), output(model), atol=1e-5, rtol=1e-5)
    assert parameters(small) == parameters(model) < parameters(loaded)


def test_constraints_and_wrong_options_are_sentences(tiny_model):
    space = space_of(tiny_model, max_layers=1)
    with pytest.raises(ConfigError, match="keeps 2 layers; expected 1 to 1"):
        everything(space)
    with pytest.raises(ConfigError, match=r"space.heads has the share 1.5"):
        space_of(tiny_model, heads=[1.5])
    with pytest.raises(ConfigError, match="neither a folder"):
        space_of("no/such-model").choices()
    assert isinstance(space.table["layer0.heads"], Choice)
