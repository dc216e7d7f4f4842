"""Decoders from scratch: causal, of transformers' own classes, their head kept, counts by hand, exports alike."""

import itertools

import numpy as np
import pytest
import torch
from conformance import FixtureSpaceTests
from transformers import AutoModel, AutoModelForCausalLM
from two_texts import IDS, MASK, output

from nas_meta import search
from nas_meta.config.resolved import read_config
from nas_meta.errors import ConfigError
from nas_meta.learners.maml import MAML, MAMLOptions
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import flops, parameters
from nas_meta.outputs.export.exported_model import evaluate_folder
from nas_meta.outputs.export.folder import export
from nas_meta.tasks.episodes import EpisodeShape, episode
from nas_meta.tasks.sources.files import JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer
from search_spaces.scratch.decoder import DecoderOptions, ScratchDecoder

SMALL = {"family": ["llama", "gpt2"], "depth": [1, 2], "width": [16, 32], "heads": [2, 4], "kv_heads": [1, 2, 4]}
PLACES = 24
LLAMA = {"family": "llama", "depth": 2, "width": 32, "heads": 4, "kv_heads": 2, "ffn": 2.0, "tied": True}
GPT2 = {name: value for name, value in LLAMA.items() if name != "kv_heads"} | {"family": "gpt2"}
ALL = [{**a, "tied": tied} for a, tied in itertools.product((LLAMA, GPT2), (True, False))]


@pytest.fixture
def space(tiny_model):
    return ScratchDecoder(DecoderOptions(tokenizer=str(tiny_model), max_positions=PLACES, **SMALL))


class TestConformance(FixtureSpaceTests):
    """The fixture ``space`` passes the checks of search spaces."""


def counted_by_hand(a, vocabulary, tokens):
    """Parameters and FLOPs, part by part; the head of a language model is no part of an embedding's FLOPs."""
    w, width = a["width"], int(a["ffn"] * a["width"])
    tables = vocabulary * w + (0 if a["tied"] else vocabulary * w)
    products = 2 * (2 * tokens * tokens * w)  # of queries and keys, and of weights and values
    if a["family"] == "llama":
        one_head = w // a["heads"]
        query_and_out, key_and_value = 2 * (w * w), 2 * (w * a["kv_heads"] * one_head)
        gate_up_down = 3 * (w * width)
        layer = query_and_out + key_and_value + gate_up_down
        params = tables + a["depth"] * (layer + w + w) + w
    else:
        layer = 3 * (w * w) + w * w + w * width + width * w
        biases = 3 * w + w + width + w
        params = tables + PLACES * w + a["depth"] * (layer + biases + 2 * w + 2 * w) + 2 * w
    return {"params": params, "flops": a["depth"] * (2 * tokens * layer + products)}


def test_counts_of_ten_architectures_equal_a_count_by_hand_and_the_built_model(space):
    rng = np.random.default_rng(1)
    drawn = [space.sample(rng) for _ in range(10)]
    assert {a["family"] for a in drawn} == {"llama", "gpt2"} and {a["tied"] for a in drawn} == {True, False}
    for a in drawn:
        model = space.build(a)
        by_hand = counted_by_hand(a, 29, 9)
        assert space.counts(a, 9) == by_hand == {"params": parameters(model), "flops": flops(model, 9)}


def test_the_number_of_architectures_equals_enumeration(tiny_model):
    options = {"family": ["gpt2", "llama"], "width": [24, 32], "heads": [4, 8, 6], "kv_heads": [1, 3, 4]}
    space = ScratchDecoder(DecoderOptions(tokenizer=str(tiny_model), **options))
    found = set()
    for values in itertools.product(*(choice.values for choice in space.table.values())):
        a = space.canonical(dict(zip(space.table, values, strict=True)))
        if space.problem(a) is None:
            found.add(a)
    assert space.size() == len(found)


def test_key_value_heads_divide_the_heads_and_heads_the_width(space):
    with pytest.raises(ConfigError, match="4 key-value heads do not divide 2 heads"):
        space.architecture({**LLAMA, "heads": 2, "kv_heads": 4})
    assert "kv_heads" not in space.architecture({**GPT2, "kv_heads": 4}).values


@pytest.mark.parametrize("values", ALL)
def test_states_and_logits_are_those_of_the_language_model_inside(space, values):
    torch.manual_seed(0)
    model = space.build(space.architecture(values)).eval()
    with torch.no_grad():
        expected = model.lm(input_ids=IDS, attention_mask=MASK).logits
        logits = model.get_output_embeddings()(output(model))
        below = model.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(below, output(model))
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == values["tied"]


@pytest.mark.parametrize("values", [LLAMA, GPT2])
def test_no_token_sees_what_is_behind_and_padding_is_silent(space, values):
    torch.manual_seed(0)
    a = space.architecture(values)
    model = space.build(a)
    other = IDS.clone()
    other[0, 3] = 20
    before, after = output(model)[0], output(model, other)[0]
    torch.testing.assert_close(before[:3], after[:3])
    assert ((before - after)[3:].abs().amax(1) > 1e-4).all()
    for pooling in ("mean", "last"):
        encoder = Encoder(model, pooling)
        with torch.no_grad():
            torch.testing.assert_close(encoder(IDS, MASK)[1:], encoder(IDS[1:, :3], MASK[1:, :3]))


@pytest.mark.parametrize("values", ALL)
def test_an_export_loads_with_transformers_alone(space, values, tmp_path):
    torch.manual_seed(0)
    a = space.architecture(values)
    model = space.build(a).eval()
    space.save(model, a, tmp_path)
    states = output(AutoModel.from_pretrained(tmp_path, trust_remote_code=False))
    torch.testing.assert_close(states, output(model))
    torch.testing.assert_close(output(space.load(tmp_path)), output(model))
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=False).eval()
        logits = [lm(input_ids=IDS, attention_mask=MASK).logits for lm in (loaded, model.lm)]
    torch.testing.assert_close(*logits)


def test_an_inner_loop_moves_all_but_the_head(space, labelled_texts, tiny_model):
    """Second order, through packed texts of several tasks at once."""
    tasks = load_tasks(JSONLines(JSONLines.Options(path=labelled_texts)), load_tokenizer(str(tiny_model)), 16)
    pool = tasks["meta-train"]
    learner = MAML(MAMLOptions(inner_steps=1, train_embeddings=True))
    torch.manual_seed(0)
    encoder = Encoder(space.build(space.architecture({**LLAMA, "depth": 1, "tied": False})), "last")
    encoder.learned = learner.learned(encoder, 3)
    moved = learner.adapted(encoder)
    assert moved and not any("lm_head" in name for name in moved)
    learner.meta_loss(encoder, pool, episode(pool, EpisodeShape(3, 1, 2), 0, 0)).backward()
    reached = {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert reached >= set(moved) and not any("lm_head" in name for name in reached)


def test_a_search_trains_exports_and_evaluates(small_config, tiny_model, tmp_path):
    small_config["space"] = {
        "name": "decoder", "tokenizer": str(tiny_model), "max_positions": 32, "depth": [1], "width": [16],
        "heads": [2], "kv_heads": [1], "ffn": [1.0], "tied": [True],
    }  # fmt: skip
    small_config["tasks"]["pooling"] = {"choice": ["mean", "last"]}
    small_config["learner"] |= {"train_embeddings": True}
    small_config["strategy"] = {"name": "grid"}
    small_config |= {"budget": {"trials": 2}, "objectives": [{"metric": "accuracy"}]}
    run = search(small_config, run_dir=tmp_path / "run", inline=True)
    assert {trial.architecture["tasks.pooling"] for trial in run.trials} == {"mean", "last"}
    last = next(trial for trial in run.trials if trial.architecture["tasks.pooling"] == "last")
    folder = export(run, tmp_path / "model", last.id)
    assert "the last token of the attention mask" in (folder / "README.md").read_text()
    scored = evaluate_folder(folder, read_config(folder / "nas_meta.yaml"), split="meta-validation", episodes=20)
    assert scored["accuracy"] == pytest.approx(last.metrics["accuracy"], abs=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_heads": []}, "space.kv_heads is \\[\\]; expected a non-empty list"),
        ({"kv_heads": [3], "family": ["llama"]}, "space.width, space.heads and space.kv_heads do not fit"),
        ({"ffn": [-1.0]}, "space.ffn has -1.0; expected multiples above 0"),
    ],
)
def test_wrong_options_are_sentences(tiny_model, options, words):
    with pytest.raises(ConfigError, match=words):
        ScratchDecoder(DecoderOptions(tokenizer=str(tiny_model), **{**SMALL, **options}))
