"""NNI's model spaces as search spaces: their choices, what conditions them, and models that are NNI's own."""

import itertools

import numpy as np
import pytest
import torch
import yaml

from nas_meta import load_run, search
from nas_meta.config.resolved import read_config, resolve
from nas_meta.errors import ConfigError
from nas_meta.models.profiling import flops, parameters
from nas_meta.outputs.export.exported_model import evaluate_folder
from nas_meta.outputs.export.folder import export
from nas_meta.testing import SpaceTests
from search_spaces.nni_space import SMALL, NNISpace, NNISpaceOptions, load_frozen

TINY = {**SMALL, "search_embed_dim": [16, 24], "search_mlp_ratio": [1.0, 2.0], "search_depth": [1, 2], "patch_size": 4}

TEXT = '''
import nni
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableLinear, Repeat
from torch import nn


class Pooled(nn.Module):
    def forward(self, states):
        return states.cumsum(1) / torch.arange(1, states.shape[1] + 1).view(1, -1, 1)


class Block(nn.Module):
    def __init__(self, index):
        super().__init__()
        wide = nni.choice(f"wide{index}", [8, 16])
        self.operation = LayerChoice(
            {"mlp": nn.Sequential(MutableLinear(12, wide), nn.GELU(), MutableLinear(wide, 12)), "pool": Pooled()},
            label=f"op{index}",
        )

    def forward(self, states):
        return states + self.operation(states)


class TextSpace(ModelSpace):
    """Two to three states; which of them the output sums is chosen."""

    def __init__(self, words: int = 50):
        super().__init__()
        self.words, self.norm = nn.Embedding(words, 12), nn.LayerNorm(12)
        self.blocks = Repeat(Block, (1, 2), label="depth")
        self.sum = InputChoice(3, n_chosen=2, reduction="sum", label="sum")

    def forward(self, input_ids, attention_mask):
        states = self.norm(self.words(input_ids))
        blocks = self.blocks(states)
        return self.sum([states, blocks, 2 * blocks])


class Constrained(ModelSpace):
    def __init__(self):
        super().__init__()
        one, other = nni.choice("one", [2, 4, 8]), nni.choice("other", [2, 4, 8])
        self.down, self.up = MutableLinear(64, one), MutableLinear(one, other)
        self.together = Bound(one + other <= 8)

    def forward(self, images):
        return self.up(self.down(images.flatten(1)))


class Bound(nni.nas.nn.pytorch.MutableModule):
    def __init__(self, expression):
        super().__init__()
        self.add_mutable(nni.mutable.annotation.ExpressionConstraint(expression, label="bound"))

    def freeze(self, sample):
        return nn.Identity()


class Uniform(ModelSpace):
    def __init__(self):
        super().__init__()
        self.layer = MutableLinear(4, 4)
        self.drop = nni.nas.nn.pytorch.MutableDropout(nni.uniform("rate", 0, 1))


class Unlabelled(ModelSpace):
    def __init__(self):
        super().__init__()
        self.layer = LayerChoice([nn.Linear(2, 2), nn.Identity()])


class Fixed(ModelSpace):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("nni") / "spaces.py"
    path.write_text(TEXT)
    return path


@pytest.fixture
def text(file):
    return NNISpace(NNISpaceOptions(model_space=f"{file}:TextSpace"))


@pytest.fixture
def autoformer():
    return NNISpace(NNISpaceOptions(arguments=TINY, model_space="nni.nas.hub.pytorch:AutoformerSpace"))


def samples(space, count, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


class TestText(SpaceTests):
    @pytest.fixture(autouse=True)
    def _space(self, text):
        self.space = text

    def make_space(self):
        return self.space


def test_choices_are_nnis_mutables_where_they_have_an_effect(text):
    assert (text.modality, text.image_shape) == ("text", None)
    assert {name: choice.values for name, choice in text.table.items()} == {
        "depth": (1, 2), "op0": ("mlp", "pool"), "wide0": (8, 16), "op1": ("mlp", "pool"), "wide1": (8, 16),
        "sum": ("0+1", "0+2", "1+2"),
    }  # fmt: skip
    assert {name: choice.when for name, choice in text.table.items() if choice.when} == {
        "wide0": {"op0": ("mlp",)},
        "op1": {"depth": (2,)},
        "wide1": {"depth": (2,), "op1": ("mlp",)},
    }
    block = 2 + 1  # an MLP of two widths, or the pooling
    assert text.size() == 3 * (block + block**2) == len(list(text.walk()))


def test_every_architecture_is_another_model(text):
    """By the names and shapes of its parameters, and what is summed."""
    found = set()
    for architecture in text.walk():
        model = text.build(architecture)
        found.add((*((n, tuple(p.shape)) for n, p in model.named_parameters()), str(model.blocks), architecture["sum"]))
    assert len(found) == text.size()


def test_the_model_is_nnis_own(text):
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    for architecture in samples(text, 8):
        sample = {"depth": 1, "op0": "mlp", "op1": "mlp", "wide0": 8, "wide1": 8, **architecture.values}
        sample["sum"] = [int(i) for i in architecture["sum"].split("+")]
        own, nnis = text.build(architecture), text.model_space().freeze(sample)
        nnis.load_state_dict(own.state_dict())
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        torch.testing.assert_close(own(**inputs), nnis(**inputs))
        assert parameters(own) == parameters(nnis) and flops(own, 7) == flops(nnis, 7)


def test_an_mlp_of_a_block_has_the_parameters_of_a_count_by_hand(text):
    wide = text.architecture({"depth": 1, "op0": "mlp", "wide0": 16, "sum": "0+1"})
    pooled = text.architecture({"depth": 2, "op0": "pool", "op1": "pool", "sum": "0+1"})
    assert parameters(text.build(wide)) == 50 * 12 + 2 * 12 + (12 * 16 + 16) + (16 * 12 + 12)
    assert parameters(text.build(pooled)) == 50 * 12 + 2 * 12


def test_a_model_is_saved_and_loaded(text, autoformer, tmp_path):
    for space, inputs in ((text, {"input_ids": torch.ones(1, 3).long(), "attention_mask": torch.ones(1, 3).long()}),
                          (autoformer, {"pixel_values": torch.rand(2, 1, 8, 8)})):  # fmt: skip
        architecture = samples(space, 1)[0]
        model = space.build(architecture).eval()
        folder = tmp_path / space.modality
        space.save(model, architecture, folder)
        torch.testing.assert_close(space.load(folder).eval()(**inputs), model(**inputs))
        torch.testing.assert_close(load_frozen(folder)(**inputs), model(**inputs))


def test_autoformer_takes_images_and_agrees_with_nnis_frozen_model(autoformer):
    assert (autoformer.modality, autoformer.image_shape) == ("image", (1, 8, 8))
    assert autoformer.size() == 2 * (4 + 4**2)  # widths, then heads and ratios of one block or of two
    images = torch.rand(3, 1, 8, 8)
    for architecture in samples(autoformer, 6):
        model = autoformer.build(architecture).eval()
        sample = {**{f"{n}_{i}": 1 for n in ("num_head", "mlp_ratio") for i in (0, 1)}, **architecture.values}
        nnis = autoformer.model_space.frozen_factory(sample)(**TINY).eval()
        nnis.load_state_dict({name.removeprefix("model."): t for name, t in model.state_dict().items()})
        assert model(pixel_values=images).shape == (3, architecture["embed_dim"])
        torch.testing.assert_close(model(pixel_values=images), nnis(images))
        assert parameters(model) == parameters(nnis)


def test_autoformers_parameters_and_flops_equal_a_count_by_hand(autoformer):
    d, heads, ratio, patches = 24, 2, 2, 4
    architecture = autoformer.architecture({"embed_dim": d, "depth": 1, "num_head_0": heads, "mlp_ratio_0": 2.0})
    tokens, inner, positions = patches + 1, heads * 64, 2 * (2 * 2 + 2) * 64
    attention = 3 * (d * inner + inner) + inner * d + d + 2 * positions
    mlp = d * ratio * d + ratio * d + ratio * d * d + d
    outside = (4 * 4 * d + d) + d + tokens * d + 2 * d  # patches, class token, positions, the last norm
    model = autoformer.build(architecture)
    assert parameters(model) == outside + attention + mlp + 2 * 2 * d
    # Keys and values with their relative positions, at every head: twice the products of plain attention.
    products = 4 * tokens * tokens * inner
    by_hand = 2 * (patches * 4 * 4 * d + tokens * (4 * d * inner + 2 * ratio * d * d) + products)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(pixel_values=torch.zeros(1, 1, 8, 8))
    assert counter.get_total_flops() == by_hand


def test_a_constraint_of_nnis_is_one_of_the_space(file):
    space = NNISpace(NNISpaceOptions(model_space=f"{file}:Constrained"))
    inside = {(a, b) for a, b in itertools.product((2, 4, 8), repeat=2) if a + b <= 8}
    assert {(a["one"], a["other"]) for a in space.walk()} == inside and space.size() == len(inside)
    with pytest.raises(ConfigError, match="one=8, other=8 is not in NNISpace: NNI rejects it"):
        space.architecture({"one": 8, "other": 8})
    assert space.build(space.architecture({"one": 2, "other": 4}))(torch.rand(2, 1, 8, 8)).shape == (2, 4)


@pytest.mark.slow
def test_a_search_over_a_model_space_ends_in_a_folder_that_can_be_loaded_and_scored(small_config, file, tmp_path):
    named = {"name": "nni-space", "model_space": f"{file}:TextSpace", "tokenizer": small_config["space"]["model"]}
    best = search(resolve({**small_config, "space": named}), tmp_path / "run", inline=True).best
    folder = export(load_run(tmp_path / "run", allow_plugins=True), tmp_path / "model")
    card = (folder / "README.md").read_text()
    assert 'model = load_frozen("model")' in card and "AutoModel" not in card and "library_name: nas-meta" in card
    scored = evaluate_folder(folder, read_config(folder / "nas_meta.yaml"), "meta-validation", 20)
    assert scored["accuracy"] == pytest.approx(best.metrics["accuracy"])


@pytest.mark.parametrize(
    ("name", "choices", "size"),
    [
        ("NasBench101", 12, None),
        ("NasBench201", 6, 5**6),
        ("DARTS", 34, None),
        ("ProxylessNAS", 26, None),
        ("ShuffleNetSpace", 20, 4**20),
        ("MobileNetV3Space", 67, None),
    ],
)
@pytest.mark.slow
def test_the_other_model_spaces_of_nnis_hub_build(name, choices, size):
    space = NNISpace(NNISpaceOptions(model_space=f"nni.nas.hub.pytorch:{name}", image_shape=(3, 32, 32)))
    assert len(space.table) == choices and (size is None or space.size() == size)
    for architecture in samples(space, 2):
        model = space.build(architecture).eval()
        assert model(pixel_values=torch.rand(2, 3, 32, 32)).shape[0] == 2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Uniform", "NNI's mutable 'rate' is a Numerical, whose values cannot be listed; expected Categorical"),
        ("Unlabelled", "cannot be created with space.arguments: ValueError: Label must be specified manually"),
        ("Fixed", "has no choices; expected at least one NNI mutable in it"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(file, name, sentence):
    with pytest.raises(ConfigError, match=sentence):
        NNISpace(NNISpaceOptions(model_space=f"{file}:{name}")).size()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model_space": "TextSpace"}, "'TextSpace' is not the path of a class; expected path/to/file.py:Name or"),
        ({"model_space": "{file}:TextSpade"}, "has no 'TextSpade'; did you mean 'TextSpace'"),
        ({"model_space": "{file}:Block"}, ":Block is not an NNI ModelSpace"),
        ({"model_space": "no.such.package:Space"}, "no.such.package cannot be imported: ModuleNotFoundError"),
        ({"model_space": "/no/such/file.py:Space"}, "there is no file /no/such/file.py"),
    ],
)
def test_a_wrong_name_is_a_sentence_with_file_line_and_key(file, tmp_path, options, sentence):
    named = {"name": "nni-space", **{k: v.replace("{file}", str(file)) for k, v in options.items()}}
    config = tmp_path / "search.yaml"
    config.write_text(yaml.safe_dump({"space": named}))
    with pytest.raises(ConfigError, match=rf"search.yaml:2: space.model_space: .*{sentence}"):
        read_config(config)


def test_an_argument_that_the_model_space_does_not_take_is_named(file, tmp_path):
    config = tmp_path / "search.yaml"
    arguments = {"name": "nni-space", "model_space": f"{file}:TextSpace", "arguments": {"word": 3}}
    config.write_text(yaml.safe_dump({"space": arguments}))
    with pytest.raises(ConfigError, match="arguments has 'word', which TextSpace does not take; did you mean 'words'"):
        read_config(config)
