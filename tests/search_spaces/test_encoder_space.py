"""Encoders from scratch: transformers' own models where these are the same function, counts by hand, exports alike."""

import itertools

import pytest
import torch
from conformance import FixtureSpaceTests
from loaded_alone import output_alone
from torch import nn
from transformers import AutoModel, EuroBertModel, LlamaConfig, LlamaModel
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from two_texts import output, samples

from nas_meta import search
from nas_meta.config.resolved import read_config
from nas_meta.errors import ConfigError
from nas_meta.models.compute import Compute
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import flops, parameters
from nas_meta.outputs.export.exported_model import evaluate_folder
from nas_meta.outputs.export.folder import export
from search_spaces.scratch.encoder import EncoderOptions, ScratchEncoder
from search_spaces.scratch.encoder_model import EncoderConfig, EncoderModel, slopes
from search_spaces.scratch.encoder_native import as_native

IDS = torch.tensor([[2, 7, 9, 11, 3, 12, 13], [2, 8, 3, 0, 0, 0, 0]])
MASK = (IDS > 0).long()
SMALL = {"depth": [1, 2], "hidden": [16, 32], "heads": [2, 4], "ffn": [0.5, 2.0], "windows": [1, 2]}
PLACES = 24
PLAIN = {
    "depth": 2, "hidden": 32, "heads": 4, "layer0.ffn": 2.0, "layer1.ffn": 2.0, "activation": "gelu", "norm": "layer",
    "norm_place": "post", "positions": "learned", "attention": "full", "pooling": "mean",
}  # fmt: skip
KINDS = list(itertools.product(["learned", "rotary", "alibi"], ["full", "sliding"], ["mean", "cls", "attention"]))


@pytest.fixture
def space(tiny_model):
    return ScratchEncoder(EncoderOptions(tokenizer=str(tiny_model), max_positions=PLACES, **SMALL))


def architecture(space, **chosen):
    values = {**PLAIN, **chosen}
    return space.architecture({**values, "window": 1} if values["attention"] == "sliding" else values)


def shaken(model):
    """The model with every parameter far from what it was, so that none is without effect."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


class TestConformance(FixtureSpaceTests):
    """The fixture ``space`` passes the checks of search spaces."""


def counted_by_hand(a, vocabulary, tokens):
    """Parameters and FLOPs, part by part."""
    h = a["hidden"]

    def linear(inputs, outputs):
        return inputs * outputs + outputs, 2 * tokens * inputs * outputs

    norm = 2 * h if a["norm"] == "layer" else h
    params, operations = vocabulary * h, 0
    if a["positions"] == "learned":
        params += PLACES * h
    if a["norm_place"] == "post":
        norms_of_embeddings, norms_of_first_layer, last = 1, 2, 0
    elif a["norm"] == "layer":
        norms_of_embeddings, norms_of_first_layer, last = 1, 1, 1
    else:
        norms_of_embeddings, norms_of_first_layer, last = 0, 2, 1
    params += (norms_of_embeddings + norms_of_first_layer + 2 * (a["depth"] - 1) + last) * norm
    for i in range(a["depth"]):
        width = int(a[f"layer{i}.ffn"] * h)
        projections = [linear(h, h)] * 4 + [linear(h, width), linear(width, h)]
        if a["activation"] == "swiglu":
            projections.append(linear(h, width))
        params += sum(p for p, _ in projections)
        operations += sum(f for _, f in projections)
        operations += 2 * (2 * tokens * tokens * h)  # products of queries and keys, and of weights and values
    if a["pooling"] == "attention":
        params += h
        operations += 2 * tokens * h
    return {"params": params, "flops": operations}


def test_counts_of_ten_architectures_equal_a_count_by_hand_and_the_built_model(space):
    for a in samples(space, 10):
        model = space.build(a)
        by_hand = counted_by_hand(a, 29, 9)
        assert space.counts(a, 9) == by_hand == {"params": parameters(model), "flops": flops(model, 9)}


def test_the_number_of_architectures_equals_enumeration(tiny_model):
    """32 has two heads but not five, and heads of 3 cannot be rotated."""
    options = {
        "depth": [1, 3], "hidden": [32, 30], "heads": [2, 5, 10], "ffn": [0.5, 1.0], "activation": ["gelu"],
        "norm": ["rms"], "norm_place": ["pre", "post"], "windows": [2, 3], "pooling": ["mean"],
    }  # fmt: skip
    space = ScratchEncoder(EncoderOptions(tokenizer=str(tiny_model), **options))
    found = set()
    for values in itertools.product(*(choice.values for choice in space.table.values())):
        a = space.canonical(dict(zip(space.table, values, strict=True)))
        if space.problem(a) is None:
            found.add(a)
    assert space.size() == len(found)


def test_what_has_no_effect_is_no_part_of_an_architecture(space):
    a = space.architecture({**PLAIN, "depth": 1, "window": 2})
    assert "layer1.ffn" not in a.values and "window" not in a.values


NATIVE = {
    "BertModel": {},
    "EuroBertModel": {"norm_place": "pre", "norm": "rms", "positions": "rotary", "activation": "swiglu"},
    "ModernBertModel": {"norm_place": "pre", "positions": "rotary", "activation": "swiglu"},
    "ModernBertModel, sliding": {
        "norm_place": "pre", "positions": "rotary", "activation": "swiglu", "attention": "sliding",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", NATIVE)
def test_transformers_own_class_with_the_same_weights_gives_the_same_states(space, kind, tmp_path):
    a = architecture(space, **NATIVE[kind])
    model = shaken(space.build(a))
    native = as_native(model)
    assert type(native).__name__ == kind.split(",")[0]
    assert parameters(native) == parameters(model) + (32 if kind == "BertModel" else 0)  # a vector of the token's type
    for loaded in (native, reloaded(space, model, a, tmp_path)):
        for row, length in enumerate(MASK.sum(1)):
            torch.testing.assert_close(
                output(loaded, IDS, MASK)[row, :length], output(model, IDS, MASK)[row, :length], atol=1e-5, rtol=1e-5
            )


def reloaded(space, model, a, folder):
    """A native export, loaded without any code but transformers'."""
    space.save(model, a, folder)
    assert not list(folder.glob("*.py"))
    assert type(space.load(folder)) is type(as_native(model))
    return AutoModel.from_pretrained(folder, trust_remote_code=False)


def test_a_llama_that_sees_everything_gives_the_same_states(space):
    model = shaken(space.build(architecture(space, **NATIVE["EuroBertModel"])))
    native = as_native(model)
    assert isinstance(native, EuroBertModel)
    names = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "rms_norm_eps",
    )
    sizes = {name: getattr(native.config, name) for name in names}
    llama = LlamaModel(LlamaConfig(**sizes, attention_bias=True, mlp_bias=True, pad_token_id=0))
    llama.load_state_dict(native.state_dict())
    ids = IDS[:1]
    everything = torch.zeros(1, 1, 7, 7)
    torch.testing.assert_close(output(llama, ids, everything), output(model, ids, MASK[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("changed", [{"norm": "rms"}, {"layer1.ffn": 0.5}, {"pooling": "attention"}])
def test_what_no_class_of_transformers_can_express_is_not_exported_as_one(space, changed):
    assert as_native(space.build(architecture(space, **changed))) is None


@pytest.mark.parametrize("heads", [4, 6])
def test_alibi_falls_with_the_distance_as_in_bloom(heads):
    """Bloom adds slope · j: of the softmax over the tokens j ≤ i the same as -slope · (i - j)."""
    model = EncoderModel(EncoderConfig(vocab_size=9, hidden_size=24, num_attention_heads=heads, positions="alibi"))
    ours = model._mask(torch.ones(1, 7), torch.arange(7)[None], torch.float)[0]
    bloom = build_alibi_tensor(torch.ones(1, 7), heads, torch.float)
    for i in range(7):
        before = slice(0, i + 1)
        expected = bloom[:, 0, before] - bloom[:, 0, i : i + 1]
        torch.testing.assert_close(ours[:, i, before], expected)
        torch.testing.assert_close(ours[:, before, i], expected)  # and to the other side
    assert slopes(8) == [1 / 2**i for i in range(1, 9)]  # of the paper


def test_a_window_hides_what_is_further_away(space):
    model = shaken(space.build(architecture(space, attention="sliding", depth=2)))
    other = IDS.clone()
    other[0, 6] = 20
    before, after = output(model, IDS, MASK)[0], output(model, other, MASK)[0]
    changed = (before - after).abs().amax(1) > 1e-6
    assert changed.tolist() == [False] * 4 + [True] * 3  # one token a layer


@pytest.mark.parametrize(("positions", "attention", "pooling"), KINDS)
def test_padding_and_its_content_change_nothing(space, positions, attention, pooling):
    a = architecture(space, positions=positions, attention=attention, pooling=pooling)
    encoder = Encoder(shaken(space.build(a)), space.pooling(a))
    with torch.no_grad():
        alone = encoder(IDS[1:, :3], MASK[1:, :3])
        other = IDS.clone()
        other[1, 3:] = 17
        for ids in (IDS, other):
            torch.testing.assert_close(encoder(ids, MASK)[1:], alone, atol=1e-5, rtol=1e-5)


def test_pooling_by_attention_is_a_weighted_mean_and_the_models_pooler_output(space):
    a = architecture(space, pooling="attention")
    model = shaken(space.build(a))
    states = output(model, IDS, MASK)[1, :3]
    weights = (states @ model.pooling_scores[0].weight[0]).softmax(0)
    expected = weights @ states
    with torch.no_grad():
        torch.testing.assert_close(Encoder(model, "attention")(IDS, MASK)[1], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(IDS, MASK).pooler_output[1], expected, atol=1e-5, rtol=1e-5)


def test_layers_that_are_computed_again_give_the_same_gradients(space):
    a = architecture(space, positions="alibi", attention="sliding", pooling="attention")
    gradients = []
    for again in (False, True):
        encoder = Encoder(shaken(space.build(a)), "attention", Compute(gradient_checkpointing=again))
        encoder.train()
        for module in encoder.modules():
            module.p = 0.0 if isinstance(module, nn.Dropout) else getattr(module, "p", None)
        with encoder._compiled_and_checkpointed():
            encoder(IDS, MASK).square().sum().backward()
        gradients.append([p.grad for p in encoder.model.parameters()])
    assert len(gradients[0]) == len(gradients[1]) and all(g is not None for g in gradients[1])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(("space_name", "objective"), [("encoder", "mlm"), ("encoder", "simcse"), ("decoder", "clm")])
@pytest.mark.slow
def test_candidates_are_pre_trained_before_they_are_meta_trained(
    space_name, objective, small_config, tiny_model, labelled_texts, tmp_path
):
    sizes = {"hidden": [16], "pooling": ["attention"]} if space_name == "encoder" else {"width": [16], "kv_heads": [1]}
    small_config["space"] = {"name": space_name, "tokenizer": str(tiny_model), "depth": [1], "heads": [2], **sizes}
    small_config["pretraining"] = {
        "objective": objective, "corpus": str(labelled_texts), "field": "text", "steps": 3, "batch": 4, "block": 16,
    }  # fmt: skip
    small_config |= {"budget": {"trials": 1}, "strategy": {"name": "random"}}
    run = search(small_config, run_dir=tmp_path / "run", inline=True)
    assert run.best.metrics["pretrain_seconds"] > 0


@pytest.mark.slow
def test_an_export_without_a_class_of_transformers_loads_with_its_code(space, tmp_path):
    a = architecture(space, positions="alibi", attention="sliding", pooling="attention", norm="rms")
    model = shaken(space.build(a))
    space.save(model, a, tmp_path / "model")
    pooled = output_alone(tmp_path / "model", IDS, MASK, "pooler_output", tmp_path)
    with torch.no_grad():
        expected = model(IDS, MASK).pooler_output
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        output(space.load(tmp_path / "model"), IDS, MASK), output(model, IDS, MASK), atol=1e-5, rtol=1e-5
    )


def test_a_search_trains_exports_and_evaluates_with_the_pooling_that_was_chosen(small_config, tiny_model, tmp_path):
    small_config["space"] = {
        "name": "encoder", "tokenizer": str(tiny_model), "max_positions": 32, "hidden": [16], "heads": [2],
        "depth": [1], "ffn": [1.0], "activation": ["gelu"], "norm": ["layer"], "norm_place": ["post"],
        "positions": ["learned"], "attention": ["full"], "pooling": ["cls", "attention"],
    }  # fmt: skip
    small_config["learner"] |= {"train_embeddings": True}
    small_config["strategy"] = {"name": "grid"}
    small_config |= {"budget": {"trials": 2}, "objectives": [{"metric": "accuracy"}]}
    run = search(small_config, run_dir=tmp_path / "run", inline=True)
    assert {trial.architecture["pooling"] for trial in run.trials} == {"cls", "attention"}
    for trial in run.trials:
        folder = export(run, tmp_path / trial.architecture["pooling"], trial.id)
        config = read_config(folder / "nas_meta.yaml")
        assert config.sections.tasks.pooling == trial.architecture["pooling"]
        scored = evaluate_folder(folder, config, split="meta-validation", episodes=20)
        assert scored["accuracy"] == pytest.approx(trial.metrics["accuracy"], abs=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": []}, "space.depth is \\[\\]; expected a non-empty list"),
        ({"windows": [0]}, "space.windows is \\[0\\]; expected a non-empty list of positive integers"),
        ({"ffn": [0.0]}, "space.ffn has 0.0; expected multiples above 0"),
        ({"heads": [5]}, "space.hidden and space.heads do not fit together"),
    ],
)
def test_wrong_options_are_sentences(tiny_model, options, words):
    with pytest.raises(ConfigError, match=words):
        ScratchEncoder(EncoderOptions(tokenizer=str(tiny_model), **{**SMALL, **options}))


def test_a_text_longer_than_the_positions_is_refused(small_config, tiny_model, tmp_path):
    small_config["space"] = {"name": "encoder", "tokenizer": str(tiny_model), "max_positions": 4, **SMALL}
    with pytest.raises(ConfigError, match=r"space\.max_positions is 4, but the longest text has 9 tokens"):
        search(small_config, run_dir=tmp_path / "run", inline=True)


def test_pooling_is_chosen_once(small_config, tiny_model, tmp_path):
    small_config["space"] = {"name": "encoder", "tokenizer": str(tiny_model), **SMALL}
    small_config["tasks"]["pooling"] = {"choice": ["mean", "cls"]}
    with pytest.raises(
        ConfigError, match=r"tasks\.pooling is a choice, but architectures of ScratchEncoder choose the"
    ):
        search(small_config, run_dir=tmp_path / "run", inline=True)
