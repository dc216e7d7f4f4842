"""Conformance of every family: the whole model is the original, slices are exact, counts and exports agree."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from installed import marked
from tiny_families import DECODERS, ENCODERS, HEADS, MODELS, F, H, L, P, V, save_family
from transformers import AutoModel, AutoModelForCausalLM
from two_texts import IDS, MASK, output

from nas_meta.errors import ConfigError
from nas_meta.models.adapters import adapter_names
from nas_meta.models.families import FAMILIES
from nas_meta.models.profiling import flops, parameters
from nas_meta.testing.device_rule import DeviceRule
from search_spaces.pretrained import modeling_subnet
from search_spaces.pretrained.bert_subnet import BertSubnet, BertSubnetOptions
from search_spaces.pretrained.causal_lm import CausalStates
from search_spaces.pretrained.decoder_subnet import DecoderSubnet, DecoderSubnetOptions
from search_spaces.pretrained.peft_bert import PeftBert, PeftBertOptions
from search_spaces.pretrained.subnet_folder import FOOTER
from search_spaces.slicing import cuts_of, first_heads, layers_of, parts_of, slice_layer, widths

# One of each structure: plain, joint positions, disentangled attention, gated and fused, rotary, and the decoders' own.
FAST = [
    "bert", "distilbert", "mpnet", "deberta-v2", "modernbert", "roformer", "gpt2", "llama", "gemma3_text", "gpt_neox",
    "opt",
]  # fmt: skip
T = 7
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module", params=marked([*ENCODERS, *DECODERS], FAST))
def family(request, tmp_path_factory):
    """The name of a tiny model, its folder, and a space over it whose units have random importance."""
    folder = tmp_path_factory.mktemp(request.param)
    save_family(request.param, folder)
    return request.param, folder, space_of(request.param, folder)


def space_of(name, folder):
    if name in DECODERS:
        shares = {"groups": [1.0, 0.5], "heads": [1.0, 0.5], "ffn": [1.0, 0.25]}
        space = DecoderSubnet(DecoderSubnetOptions(model=str(folder), **shares))
    else:
        space = BertSubnet(BertSubnetOptions(model=str(folder), heads=[1.0, 0.75, 0.25], ffn=[1.0, 0.25]))
    (layers, heads, neurons), rng = space.units, np.random.default_rng(0)
    space._scores = rng.random((layers, heads)), rng.random((layers, neurons))
    assert space._full is not None
    space._weights = {}  # as after prepare()
    return space


def whole(space):
    return space.architecture({n: c.values[0] for n, c in space.table.items()})


def small(space):
    """Without the first layer; the others keep different numbers of heads and of neurons."""
    values = dict(whole(space).values) | {"layer0.keep": False, "layer1.ffn": F // 4}
    name = "layer1.heads" if "layer1.groups" not in space.table else "layer1.groups"
    return space.architecture(values | {name: space.table[name].values[-1]})


def original(name, folder):
    auto = AutoModelForCausalLM if name in DECODERS else AutoModel
    model = auto.from_pretrained(folder).eval()
    return CausalStates(model) if name in DECODERS else model


def test_the_whole_architecture_is_the_original_exactly(family):
    name, folder, space = family
    assert torch.equal(output(space.build(whole(space))), output(original(name, folder)))


def test_a_slice_equals_the_original_with_units_silenced(family):
    """Zeroing the inputs behind absent heads and neurons in the original gives the outputs of the slice."""
    name, folder, space = family
    architecture = small(space)
    cut, masked = space.build(architecture), original(name, folder)
    row = FAMILIES[MODELS[name][0]]
    heads, neurons = space._scores
    kept = widths(cut)
    for i, (groups, each, width) in zip((1, 2), kept, strict=True):
        by_group = heads[i].reshape(space.units[1] // widths(masked)[i][1], -1)
        top = np.sort(np.argsort(-by_group.sum(1), kind="stable")[:groups])
        chosen = np.stack([g * by_group.shape[1] + np.sort(np.argsort(-by_group[g])[:each]) for g in top])
        strong = np.sort(np.argsort(-neurons[i], kind="stable")[:width])
        for part in cuts_of(layers_of(masked)[i], row, chosen, strong):
            if not part.outputs:
                with torch.no_grad():
                    weight = part.linear.weight.movedim(part.dim, 0)
                    weight[np.setdiff1d(np.arange(len(weight)), part.units.numpy())] = 0
    del layers_of(masked)[0]
    masked.config.num_hidden_layers = L - 1
    if getattr(masked.config, "layer_types", None):
        masked.config.layer_types = masked.config.layer_types[1:]
    assert kept[0] != kept[1]
    torch.testing.assert_close(output(cut), output(masked), **CLOSE)


def test_a_layer_is_sliced_on_the_device_of_its_weights(family):
    name, _, space = family
    layer, row = layers_of(space._full)[1], FAMILIES[MODELS[name][0]]
    parts = parts_of(layer, row)
    with DeviceRule() as rule:
        sliced = slice_layer(layer, row, first_heads(parts.groups, 1, parts.group_heads), np.array([0, 2]))
    assert parts_of(sliced, row).neurons == 2 and not rule.violations


def test_counts_are_those_of_the_built_model(family):
    _, _, space = family
    rng = np.random.default_rng(0)
    for architecture in (whole(space), small(space), space.sample(rng)):
        model = space.build(architecture)
        assert space.counts(architecture, T) == {"params": parameters(model), "flops": flops(model, T)}


def layer_by_hand(heads, neurons, qkv_bias, bias, ffn=2, norms=4, more=0):
    """Parameters of a layer with heads of eight: attention, feed-forward of two or three projections, norms."""
    width = heads * H // HEADS
    attention = 3 * width * (H + qkv_bias) + width * H + H * bias
    return attention + ffn * neurons * H + (ffn - 1) * neurons * bias + H * bias + norms * H + more


@pytest.mark.parametrize(
    ("name", "outside", "layers"),
    [
        # embeddings with norm, pooler and the table of 32 relative positions; one layer has 1 head and 12 neurons
        ("mpnet", (V + P + 2) * H + H * H + H + 32 * HEADS, lambda h, n: layer_by_hand(h, n, 1, 1)),
        # no positions and no types; 16 relative positions and their norm
        ("deberta-v2", (V + 2) * H + 16 * H + 2 * H, lambda h, n: layer_by_hand(h, n, 1, 1)),
        (
            "deberta-v2-separate",
            (V + 2) * H + 16 * H + 2 * H,
            lambda h, n: layer_by_hand(h, n, 1, 1, more=2 * h * 8 * (H + 1)),
        ),
        # no biases; the norms of embeddings and output; Wi holds the gates
        ("modernbert", (V + 2) * H, lambda h, n: layer_by_hand(h, n, 0, 0, ffn=3, norms=2)),
        # narrow embeddings with norm, and their projection
        ("electra", (V + P + 2 + 2) * 16 + 16 * H + H, lambda h, n: layer_by_hand(h, n, 1, 1)),
        # an output layer of its own; no table of positions
        ("gpt_neox", 2 * V * H + 2 * H, lambda h, n: layer_by_hand(h, n, 1, 1)),
        # positions with an offset of two; projections from and to narrow embeddings, which the output layer shares
        ("opt", V * 16 + (P + 2) * H + 2 * 16 * H + 2 * H, lambda h, n: layer_by_hand(h, n, 1, 1)),
    ],
)
def test_parameters_equal_a_count_by_hand(name, outside, layers, tmp_path):
    save_family(name, tmp_path)
    space = space_of(name, tmp_path)
    architecture = small(space)
    (few, _, narrow), (all_heads, _, wide) = widths(space.build(architecture))
    assert (few, narrow, all_heads, wide) == (2 if name in DECODERS else 1, F // 4, HEADS, F)
    assert space.counts(architecture, T)["params"] == outside + layers(few, narrow) + layers(all_heads, wide)


def test_the_supernet_is_the_model_that_the_space_builds(family):
    _, _, space = family
    supernet = space.supernet()
    architectures = [whole(space), small(space), space.sample(np.random.default_rng(1))]
    for architecture in architectures:
        built, extracted = space.build(architecture), supernet.extract(architecture)
        supernet.select(architecture)
        torch.testing.assert_close(output(supernet), output(built), **CLOSE)
        torch.testing.assert_close(output(extracted), output(built), **CLOSE)
        shapes = [{n: p.shape for n, p in model.named_parameters()} for model in (extracted, built)]
        assert shapes[0] == shapes[1]
    with supernet.eval().sharing():
        for architecture in [*architectures, architectures[0]]:
            supernet.select(architecture)
            torch.testing.assert_close(output(supernet), output(space.build(architecture)), **CLOSE)


@pytest.mark.parametrize("source", ["built", "extracted"])
def test_an_export_has_the_size_and_the_outputs_of_the_model(family, tmp_path, source):
    """A space over a supernet exports what was extracted, whose heads and neurons are in another order."""
    name, _, space = family
    architecture = small(space)
    model = space.build(architecture) if source == "built" else space.supernet().extract(architecture)
    space.save(model, architecture, tmp_path)
    loaded = space.load(tmp_path)
    torch.testing.assert_close(output(loaded), output(model), **CLOSE)
    assert parameters(loaded) == space.counts(architecture, T)["params"]
    assert type(loaded) is type(model) and widths(loaded) == widths(model)
    auto = AutoModelForCausalLM if name in DECODERS else AutoModel
    plain = auto.from_pretrained(tmp_path, trust_remote_code=True).eval()
    assert parameters(plain) == parameters(model)
    torch.testing.assert_close(output(plain.base_model), output(model), **CLOSE)
    if name in DECODERS:
        states = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
        torch.testing.assert_close(output(states), output(model), **CLOSE)
        written = plain.generate(IDS[:1], max_new_tokens=3, do_sample=False)  # with the cache of a model of two layers
        again = plain.generate(IDS[:1], max_new_tokens=3, do_sample=False, use_cache=False)
        assert written.tolist() == again.tolist()


@pytest.mark.parametrize("source", ["built", "extracted"])
def test_layers_of_one_size_are_exported_as_a_plain_model(family, tmp_path, source):
    name, _, space = family
    values = {n: F // 4 if n.endswith(".ffn") else v for n, v in whole(space).values.items()}
    if FAMILIES[MODELS[name][0]].head_keys and name not in ("gemma", "gemma2", "gemma3_text"):
        values |= {n: 1 for n in values if n.endswith(".groups")}
    architecture = space.architecture(values | {"layer2.keep": False})
    model = space.build(architecture) if source == "built" else space.supernet().extract(architecture)
    space.save(model, architecture, tmp_path)
    assert not list(tmp_path.glob("*.py"))
    loaded = (AutoModelForCausalLM if name in DECODERS else AutoModel).from_pretrained(tmp_path)
    assert parameters(loaded) == space.counts(architecture, T)["params"]
    torch.testing.assert_close(output(loaded.base_model), output(model), **CLOSE)


@pytest.mark.parametrize("name", marked(ENCODERS, [name for name in FAST if name in ENCODERS]))
def test_adapters_fit_change_nothing_at_first_and_are_exported(name, tmp_path):
    save_family(name, tmp_path / "model")
    space = PeftBert(PeftBertOptions(model=str(tmp_path / "model"), ranks=[2, 3]))
    values = {
        "layer0.part": "lora", "layer0.rank": 2, "layer0.on": "both", "layer1.part": "ia3", "layer1.on": "both",
        "layer2.part": "adapter", "layer2.rank": 3,
    }  # fmt: skip
    architecture = space.architecture(values)
    model, before = space.build(architecture), output(space.reference())
    torch.testing.assert_close(output(model), before, **CLOSE)
    inserted = set(adapter_names(model))
    assert sum(p.numel() for n, p in model.named_parameters() if n in inserted) == space.count_trained(architecture)
    space._weights = {}
    assert space.counts(architecture, T) == {"params": parameters(model), "flops": flops(model, T)}
    torch.manual_seed(2)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if n in inserted:
                p.add_(torch.randn_like(p), alpha=0.3)
    changed = output(model)
    assert (changed - before).abs().max() > 0.01
    space.save(model, architecture, tmp_path / "out")
    torch.testing.assert_close(output(space.load(tmp_path / "out")), changed, atol=1e-4, rtol=1e-4)
    plain = AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    torch.testing.assert_close(output(plain), changed, atol=1e-4, rtol=1e-4)


LOADING = """
import sys, torch
sys.path.insert(0, ".")
from modeling_subnet import load_model
model = load_model(".")
print(sum(p.numel() for p in model.parameters()))
assert "nas_meta" not in sys.modules
torch.save(model(torch.tensor([[2, 7, 9, 11, 3]])).last_hidden_state, "states.pt")
"""


def test_the_file_of_an_export_imports_torch_and_transformers_only():
    tree = ast.parse(Path(modeling_subnet.__file__).read_text() + FOOTER.format(classes="A", base="A", head=""))
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {name.name if isinstance(node, ast.Import) else node.module for node in nodes for name in node.names}
    assert {module.partition(".")[0] for module in modules} - sys.stdlib_module_names == {"torch", "transformers"}


@pytest.mark.slow
def test_the_file_of_an_export_loads_the_model_by_itself(tmp_path):
    save_family("mpnet", tmp_path / "model")
    space = space_of("mpnet", tmp_path / "model")
    architecture = small(space)
    model = space.build(architecture)
    space.save(model, architecture, tmp_path / "out")
    out = subprocess.run([sys.executable, "-c", LOADING], cwd=tmp_path / "out", capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) == parameters(model)
    torch.testing.assert_close(torch.load(tmp_path / "out" / "states.pt"), output(model, IDS[:1], MASK[:1]), **CLOSE)


def test_an_export_with_layers_of_different_sizes_gets_adapters_but_is_not_cut_again(tmp_path):
    save_family("modernbert", tmp_path / "model")
    space = space_of("modernbert", tmp_path / "model")
    model = space.build(small(space))
    space.save(model, small(space), tmp_path / "out")
    adapters = PeftBert(PeftBertOptions(model=str(tmp_path / "out"), adapters=["adapter"], ranks=[2]))
    adapters._config = adapters._full.config
    adapters._weights = {n: t.numpy() for n, t in adapters._full.state_dict().items()}
    del adapters.__dict__["_full"]  # as on a worker
    architecture = adapters.architecture({"layer0.part": "adapter", "layer1.part": "adapter", "layer0.rank": 2,
                                          "layer1.rank": 2})  # fmt: skip
    torch.testing.assert_close(output(adapters.build(architecture)), output(model), **CLOSE)
    adapters.save(adapters.build(architecture), architecture, tmp_path / "again")
    torch.testing.assert_close(output(adapters.load(tmp_path / "again")), output(model), **CLOSE)
    with pytest.raises(ConfigError, match="has layers of different sizes; expected a model with equal layers"):
        BertSubnet(BertSubnetOptions(model=str(tmp_path / "out"))).choices()


def test_a_deberta_with_a_convolution_between_its_layers_is_refused(tmp_path):
    model = save_family("deberta-v2", tmp_path)
    model.config.conv_kernel_size = 3
    model.config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has a convolution after its first layer.*conv_kernel_size"):
        BertSubnet(BertSubnetOptions(model=str(tmp_path))).choices()
