"""Nothing in the engine presumes text: images through sources, pools, learners, search, export and evaluation."""

import json

import numpy as np
import pytest
import torch
from installed import EMBEDDING_LEARNERS, marked
from PIL import Image

from nas_meta import search
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.core import plugins
from nas_meta.errors import ConfigError, DataError, TrialError
from nas_meta.evaluation.baselines import baseline_accuracies
from nas_meta.evaluation.trial import result_of
from nas_meta.journal.run import load_run
from nas_meta.learners.inner_loop.planning import works_under_vmap
from nas_meta.learners.maml import MAML, MAMLOptions
from nas_meta.models.checks import check_model
from nas_meta.models.encoder import Encoder
from nas_meta.models.inputs import example_inputs
from nas_meta.models.profiling import flops, parameters
from nas_meta.outputs.export.exported_model import evaluate_folder
from nas_meta.outputs.export.folder import export
from nas_meta.tasks.episodes import Episode, EpisodeShape, episode
from nas_meta.tasks.examples import pixel_values
from nas_meta.tasks.pool import Pool, tokenise
from nas_meta.tasks.source import TaskSource, assert_disjoint, clean
from nas_meta.tasks.sources.digits import Digits, DigitsOptions
from nas_meta.tasks.sources.images import ImageFolder, ImageOptions, read_image, save_processor
from search_spaces.scratch.vit import ViT, ViTOptions

TINY = {"patches": [4], "depths": [1, 2], "hidden": [16], "heads": [2, 4], "mlp": [1.0, 2.0]}


def image(*values, shape=(1, 2, 2)):
    return np.resize(np.array(values, np.uint8), shape)


def read(classes, modality="image"):
    class Given(TaskSource):
        def read(self):
            return classes

    Given.modality = modality
    return Given().load()


@pytest.fixture(scope="module")
def pool():
    return tokenise(Digits().load(), None)["meta-train"]


@pytest.fixture
def config():
    """A whole search on digits that takes seconds."""
    return {
        "space": {"name": "vit", **TINY},
        "tasks": {"source": "digits", "ways": 3, "shots": 1, "queries": 3},
        "learner": {"name": "protonet", "steps": 2, "lr": 1e-3},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 20, "test_episodes": 20},
        "budget": {"trials": 2},
        "latency": {"seconds": 0.02},
        "seed": 3,
    }


def test_digits_are_split_into_four_and_three_and_three_classes():
    split = Digits().load()
    assert_disjoint(split.splits)
    assert [len(split.splits[s]) for s in ("meta-train", "meta-validation", "meta-test")] == [4, 3, 3]
    assert sum(len(images) for classes in split.splits.values() for images in classes.values()) == 1797
    other = Digits(DigitsOptions(split_seed=1)).load()
    assert set(other.splits["meta-test"]) != set(split.splits["meta-test"])


def test_a_pool_gives_images_by_name_from_minus_one_to_one():
    split = read({c: [image(i, j) for j in range(20)] for i, c in enumerate("abcd", 1)})
    pool = tokenise(split, None)["meta-train"]
    inputs = pool.inputs(np.array([3, 0]))
    assert list(inputs) == ["pixel_values"] and inputs["pixel_values"].dtype == np.float32
    np.testing.assert_allclose(inputs["pixel_values"][0], pool.pixels[3] / 255 * 2 - 1, atol=1e-6)
    assert pixel_values(image(0, 255)).min() == -1 and pixel_values(image(0, 255)).max() == 1
    assert (pool.modality, len(pool), pool.lengths.tolist()) == ("image", 40, [1] * 40)
    assert [len(members) for members in pool.members] == [20, 20]


def test_equal_images_stand_once_and_in_one_class():
    one, two, three, four = (image(i) for i in range(4))
    cleaned, report = clean({"a": [one, two, one.copy()], "b": [three, two.copy(), four], "c": [one]}, 1, "image")
    assert [[int(e.max()) for e in examples] for examples in cleaned.values()] == [[2, 3]]
    assert report == [
        "1 repeated image left out",
        "2 images that belong to several classes left out",
        "2 classes with fewer than 1 distinct images left out",
    ]
    kept, _ = clean({"a": [image(0, shape=(1, 2, 2)), image(0, shape=(1, 4, 1))]}, 1, "image")
    assert len(kept["a"]) == 2


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ("a text", r"read\(\) returned a str in the class 'a'; expected an array of uint8 \[channels, height, width\]"),
        (np.zeros((1, 2, 2)), r"returned an array of float64 \[1, 2, 2\]"),
        (np.zeros((2, 2), np.uint8), r"returned an array of uint8 \[2, 2\]"),
        (np.zeros((3, 0, 2), np.uint8), r"returned an array of uint8 \[3, 0, 2\]"),
    ],
)
def test_what_is_no_image_is_a_sentence(example, words):
    with pytest.raises(DataError, match=words):
        read({"a": [example]})


def test_images_of_two_shapes_and_unknown_modalities_are_refused():
    with pytest.raises(DataError, match="image of 1×3×3 in the class 'b', but the first image is 1×2×2; expected"):
        read({"a": [image(1)], "b": [image(1, shape=(1, 3, 3))]})
    with pytest.raises(DataError, match="modality is 'images'; did you mean 'image'"):
        read({}, "images")


@pytest.fixture
def folder(tmp_path):
    """Three classes of three photographs of different sizes and formats."""
    rng = np.random.default_rng(0)
    for label in ("ant", "bee", "cat"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i, suffix in enumerate(("png", "jpg", "gif")):
            pixels = rng.integers(256, size=(10 + i, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{i}.{suffix}")
    return tmp_path / "data"


def test_a_folder_of_class_folders_is_read_resized_and_in_order(folder):
    (folder / ".DS_Store").write_text("hidden files are nobody's")
    (folder / "README.md").write_text("neither is what stands beside the classes")
    classes = ImageFolder(ImageOptions(path=folder, size=8)).read()
    assert {name: len(images) for name, images in classes.items()} == {"ant": 3, "bee": 3, "cat": 3}
    assert {(i.shape, i.dtype.name) for images in classes.values() for i in images} == {((3, 8, 8), "uint8")}
    with Image.open(folder / "bee" / "0.png") as whole:
        by_hand = np.asarray(whole.resize((8, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(classes["bee"][0], by_hand)
    assert ImageFolder(ImageOptions(path=folder, size=5, channels=1)).read()["ant"][0].shape == (1, 5, 5)
    three = ImageOptions(**dict.fromkeys(("train", "valid", "test"), folder))
    with pytest.raises(DataError, match="the class 'ant' is in both meta-train and meta-validation"):
        ImageFolder(three).load()


def truncated(folder):
    content = (folder / "bee" / "1.jpg").read_bytes()
    (folder / "bee" / "1.jpg").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "bee" / "notes.txt").write_text("no image"), r"bee/notes\.txt is not an image; expected"),
        (lambda f: (f / "bee" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 50), r"bee/0\.png is "),
        (truncated, r"bee/1\.jpg is a broken image \(.*\); expected a complete image"),
        (lambda f: (f / "bee" / "more").mkdir(), r"bee/more cannot be read: it is a folder; expected a file"),
        (lambda f: (f / "dog").mkdir(), r"dog is an empty folder; expected the images of a class"),
        (lambda f: (f / "cat" / "0.png").rename(f / "0.png"), r"data/0\.png is not in a class folder"),
        (
            lambda f: Image.fromarray(np.zeros((4, 4), np.uint16)).save(f / "cat" / "deep.png"),
            r"cat/deep\.png has more than 8 bits per channel",
        ),
    ],
)
def test_a_bad_file_is_named(spoil, words, folder):
    spoil(folder)
    with pytest.raises(DataError, match=words):
        ImageFolder(ImageOptions(path=folder)).read()


def test_a_folder_that_is_none_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file or directory; expected a folder"):
        ImageFolder(ImageOptions(path=tmp_path / "none")).read()
    with pytest.raises(DataError, match="contains no folders; expected one folder of images per class"):
        ImageFolder(ImageOptions(path=tmp_path)).read()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_exported_processor_prepares_images_as_the_search_did(channels, folder, tmp_path):
    from transformers import AutoImageProcessor

    save_processor((channels, 8, 8), tmp_path)
    file = folder / "bee" / "2.gif"
    given = Image.open(file).convert("L" if channels == 1 else "RGB")
    outside = AutoImageProcessor.from_pretrained(tmp_path)(given, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(outside, pixel_values(read_image(file, 8, channels))[None], atol=1e-6)


def test_the_number_of_vision_transformers_equals_enumeration():
    rng, tiny = np.random.default_rng(0), ViT(ViTOptions(**TINY))
    assert tiny.size() == 2 * (2 + 4) == len({tiny.sample(rng) for _ in range(400)})
    # Of hidden sizes 30 and 64 the heads 3 divide one, 2 both; widths are one choice for all layers.
    wide = ViT(ViTOptions(image_size=12, patches=[3, 6], hidden=[30, 64], heads=[2, 3], depths=[2, 3], per_layer=False))
    assert wide.size() == 3 * 2 * 2 * 3 == len({wide.sample(rng) for _ in range(2000)})


def test_parameters_and_flops_of_a_vision_transformer_equal_a_count_by_hand():
    space = ViT(ViTOptions(image_size=6, channels=3, patches=[2, 3], hidden=[8, 12], heads=[2], mlp=[1.0, 2.5]))
    values = {"patch": 3, "depth": 2, "hidden": 8, "heads": 2, "layer0.mlp": 2.5, "layer1.mlp": 1.0}
    architecture = space.architecture(values)
    h, states = 8, 4 + 1  # four patches of 3 × 3 pixels in three channels, and [CLS]
    layers = [4 * (h * h + h) + (h * m + m) + (m * h + h) + 2 * 2 * h for m in (20, 8)]
    by_hand = (27 * h + h) + h + states * h + sum(layers) + 2 * h
    # multiply-adds: patches, then for each layer projections, feed-forward and twice states² · h of attention
    matrices = 4 * 27 * h + sum(states * (4 * h * h + 2 * h * m) + 2 * states**2 * h for m in (20, 8))
    model = space.build(architecture)
    assert parameters(model) == by_hand and flops(model, example_inputs(space, 1, 1)) == 2 * matrices
    assert space.counts(architecture, 1) == {"params": by_hand, "flops": 2 * matrices}
    rng = np.random.default_rng(1)
    for other in (space.sample(rng) for _ in range(10)):
        model = space.build(other)
        measured = {"params": parameters(model), "flops": flops(model, example_inputs(space, 1, 1))}
        assert space.counts(other, 1) == measured


def test_options_that_give_no_vision_transformer_are_refused():
    with pytest.raises(ConfigError, match=r"space\.patches has 3; expected divisors of image_size, 8"):
        ViT(ViTOptions(patches=[2, 3]))
    space = ViT(ViTOptions(hidden=[30], heads=[2, 4]))
    values = {n: c.values[0] for n, c in space.table.items()}
    with pytest.raises(ConfigError, match="4 heads do not divide the hidden size 30"):
        space.architecture(values | {"heads": 4})
    shallow = space.architecture(values | {"depth": 1, "heads": 2})
    assert set(shallow.values) == {"patch", "depth", "hidden", "heads", "layer0.mlp"}


def test_a_saved_vision_transformer_gives_the_same_outputs_with_transformers_alone(tmp_path):
    from transformers import AutoModel

    space = ViT(ViTOptions(**TINY))
    values = {"patch": 4, "depth": 2, "hidden": 16, "heads": 2, "layer0.mlp": 1.0, "layer1.mlp": 2.0}
    model = space.build(space.architecture(values)).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    space.save(model, space.architecture(values), tmp_path)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inside = model(pixel_values=x).last_hidden_state
        outside = AutoModel.from_pretrained(tmp_path)(pixel_values=x).last_hidden_state
        torch.testing.assert_close(outside, inside, atol=1e-5, rtol=1e-5)
        loaded = space.load(tmp_path).eval()
        torch.testing.assert_close(loaded(pixel_values=x).last_hidden_state, inside, atol=1e-5, rtol=1e-5)
    assert parameters(loaded) == parameters(model)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | {"nas_meta_neurons": ["many"]}))
    with pytest.raises(ValueError, match="expected one integer per layer"):
        space.load(tmp_path)


@pytest.mark.parametrize("learner", marked(EMBEDDING_LEARNERS, ["protonet", "ridge", "maml", "matching"]))
def test_every_learner_learns_from_images(learner, config):
    config["learner"] |= {"name": learner}
    resolved = resolve(config)
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, 1)
    architecture = space.architecture({"patch": 4, "depth": 1, "hidden": 16, "heads": 2, "layer0.mlp": 1.0})
    trial = evaluation.trial(architecture, seed=1, keep_above=0.0)
    losses = [next(trial).values["loss"] for _ in range(2)]
    result = result_of(trial)
    assert np.isfinite(losses).all() and 0 <= result.metrics["accuracy"] <= 1
    assert result.metrics["params"] == space.counts(architecture, 1)["params"]
    assert result.metrics["flops"] == space.counts(architecture, 1)["flops"]
    assert evaluation.test(architecture, result.weights).metrics["test_accuracy"] >= 0


def test_second_order_tasks_of_images_at_once_equal_one_by_one(pool):
    torch.manual_seed(0)
    space = ViT(ViTOptions(**TINY))
    encoder = Encoder(space.build(space.sample(np.random.default_rng(0))), example=example_inputs(space, 1, 1)).eval()
    learner = MAML(MAMLOptions(inner_steps=2))
    encoder.learned = learner.learned(encoder, 3)
    tasks = [episode(pool, EpisodeShape(3, 1, 2), 0, i) for i in range(2)]
    assert works_under_vmap(encoder, pool, tasks)
    singly = torch.stack([learner.meta_loss(encoder, pool, task) for task in tasks])
    torch.testing.assert_close(learner.meta_losses(encoder, pool, tasks), singly, atol=1e-5, rtol=1e-4)
    moving = list(learner.adapted(encoder).values())
    together, alone = (
        torch.autograd.grad(losses.sum(), moving, retain_graph=True)
        for losses in (learner.meta_losses(encoder, pool, tasks), singly)
    )
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)


def test_embeddings_of_images_do_not_depend_on_the_batching(pool):
    space = ViT(ViTOptions(**TINY))
    model = space.build(space.sample(np.random.default_rng(0)))
    indices = np.random.default_rng(0).permutation(len(pool))[:150]
    for pooling in ("mean", "cls"):
        encoder = Encoder(model, pooling).eval()
        with torch.no_grad():
            states = model(pixel_values=torch.from_numpy(pool.inputs(indices)["pixel_values"])).last_hidden_state
            by_hand = states.mean(1) if pooling == "mean" else states[:, 0]
            torch.testing.assert_close(encoder.embed(pool, indices), by_hand, atol=1e-5, rtol=1e-4)
        assert encoder.packs_from is None


def test_raw_pixels_with_the_nearest_centroid_by_hand():
    """Of four images in two classes the nearest by the angle between differences from their mean."""
    pixels = np.array([[9, 0], [7, 2], [0, 9], [6, 5]], np.uint8).reshape(4, 1, 1, 2)
    pool = Pool(["a", "b"], (), np.array([0, 0, 1, 1]), pixels=pixels)
    task = Episode(np.array([[0], [2]]), np.array([[1], [3]]))
    # Less the mean (5.5, 4): the supports are (3.5, -4) and (-5.5, 5), the queries (1.5, -2) and (0.5, 1).
    assert baseline_accuracies("raw pixels, nearest centroid", pool, [task]).tolist() == [1.0]
    swapped = Episode(np.array([[0], [2]]), np.array([[3], [1]]))
    assert baseline_accuracies("raw pixels, nearest centroid", pool, [swapped]).tolist() == [0.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {"name": "bert-subnet"}}, "'bert-subnet' takes texts, but the task source 'digits' gives images"),
        ({"tasks": {"source": "jsonl", "path": "a"}}, "'vit' takes images, but the task source 'jsonl' gives texts"),
        ({"space": {"name": "vit", "image_size": 16}}, r"images of 1×16×16 .*, but .* 'digits' gives 1×8×8"),
        ({"learner": {"training": {"word_dropout": 0.1}}}, r"training\.word_dropout changes the words of texts"),
        ({"learner": {"training": {"synonyms": {"choice": [0, 0.1]}}}}, r"training\.synonyms changes the words"),
        ({"learner": {"training": {"adversarial": "fgm"}}}, "adversarial perturbs the token embeddings of texts"),
        ({"learner": {"training": {"distill": 1.0}}}, "distill needs a full model to learn from"),
        ({"pretraining": {"objective": "mlm"}}, "pretraining needs texts, but the task source 'digits' gives images"),
        ({"tasks": {"source": "digits", "ways": 5}}, "tasks.ways is 5, but meta-train has 4 classes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_runs(changes, words, config, tmp_path):
    with pytest.raises((ConfigError, DataError), match=words):
        search(config | changes, tmp_path / "run", inline=True)


def test_a_model_that_gives_no_states_of_images_is_named():
    space = ViT(ViTOptions(**TINY))

    class Flat(torch.nn.Linear):
        def forward(self, pixel_values):
            return super().forward(pixel_values.flatten())

    with pytest.raises(TrialError, match=r"is torch.float32 \[3\] for 2 images of 1×8×8; .* \[2, patches, width\]"):
        check_model(Flat(128, 3), space)


def test_a_search_on_images_ends_in_a_model_that_transformers_loads(config, tmp_path):
    from transformers import AutoModel

    from nas_meta.outputs.report.terminal import result_table

    config["tasks"]["pooling"] = "cls"
    run = search(config, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 2
    assert set(run.report["references"]) == {"raw pixels, nearest centroid"}
    assert run.report["latency"]["inputs"] == "an image of 1×8×8"
    assert "an image of 1×8×8" in result_table(run).caption
    folder = export(load_run(tmp_path / "run"), tmp_path / "model")
    assert {"preprocessor_config.json", "config.json", "README.md"} <= {p.name for p in folder.iterdir()}
    assert not list(folder.glob("token*"))
    card = (folder / "README.md").read_text()
    assert "FLOPs for an image of 1×8×8" in card and "AutoImageProcessor" in card and "AutoTokenizer" not in card
    score = evaluate_folder(folder, run.config, episodes=20)
    assert score["accuracy"] == pytest.approx(run.test_of(run.best)["test_accuracy"])
    assert AutoModel.from_pretrained(folder).config.num_channels == 1


def test_a_space_says_what_it_takes_and_a_source_what_it_gives():
    from nas_meta.cli.plugin_description import describe
    from nas_meta.testing import check_space

    assert describe("spaces", "vit")["takes"] == describe("tasks", "image-folder")["gives"] == "images"
    assert describe("spaces", "bert-subnet")["takes"] == describe("tasks", "jsonl")["gives"] == "texts"
    assert check_space("vit")[0] == []

    class Shapeless(ViT):
        def __init__(self, options=None):
            super().__init__(options)
            self.image_shape = (8, 8)

    from nas_meta.models.inputs import check_modality

    with pytest.raises(
        ConfigError, match=r"Shapeless takes images, but its image_shape is \(8, 8\); expected channels"
    ):
        check_modality(Shapeless())
    assert plugins.load("tasks", "digits") is Digits
