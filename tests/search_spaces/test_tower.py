"""Two towers: an image encoder and a text encoder searched together, on images with texts."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from installed import marked
from PIL import Image

from nas_meta import search
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError, DataError
from nas_meta.evaluation.baselines import baseline_accuracies
from nas_meta.evaluation.trial import result_of
from nas_meta.journal.run import load_run
from nas_meta.models.inputs import example_inputs
from nas_meta.models.profiling import flops, parameters
from nas_meta.outputs.export.exported_model import evaluate_folder
from nas_meta.outputs.export.folder import export
from nas_meta.tasks.episodes import EpisodeShape, episodes
from nas_meta.tasks.examples import images_of, texts_of
from nas_meta.tasks.pool import tokenise
from nas_meta.tasks.sources.captioned import ImageText, ImageTextOptions
from nas_meta.tasks.sources.digits import CaptionOptions, DigitCaptions, digits
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer
from search_spaces.scratch.vit import ViT, ViTOptions
from search_spaces.tower.tower import Tower, TowerOptions

IMAGE = {"name": "vit", "patches": [4], "depths": [1, 2], "hidden": [16], "heads": [2, 4], "mlp": [1.0, 2.0]}


@pytest.fixture
def options(tiny_model):
    text = {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0, 0.5], "ffn": [1.0, 0.5]}
    return {"image": IMAGE, "text": text, "width": 8}


@pytest.fixture
def space(options):
    return Tower(TowerOptions(**options))


@pytest.fixture
def config(options):
    """A whole search on digits with captions that takes seconds."""
    return {
        "space": {"name": "tower", **options},
        "tasks": {"source": "digit-captions", "ways": 3, "shots": 1, "queries": 3, "max_tokens": 12},
        "learner": {"name": "protonet", "steps": 2, "lr": 1e-3},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 20, "test_episodes": 20},
        "budget": {"trials": 2},
        "latency": {"seconds": 0.02, "tokens": 8},
        "seed": 3,
    }


def inputs_of(examples=3, tokens=5):
    random = torch.Generator().manual_seed(0)
    mask = torch.ones(examples, tokens, dtype=torch.long)
    mask[0, 3:] = 0
    return {
        "pixel_values": torch.randn(examples, 1, 8, 8, generator=random),
        "input_ids": torch.randint(5, 20, (examples, tokens), generator=random) * mask,
        "attention_mask": mask,
    }


def test_the_choices_and_constraints_are_those_of_both_spaces(space, tiny_model):
    image, text = ViT(ViTOptions(**{k: v for k, v in IMAGE.items() if k != "name"})), space.spaces["text"]
    assert set(space.table) == {f"image.{n}" for n in image.table} | {f"text.{n}" for n in text.table}
    assert space.size() == image.size() * text.size() == 12 * (2 * 4 + 4**2)
    first = {name: choice.values[0] for name, choice in space.table.items()}
    with pytest.raises(ConfigError, match="text: it keeps 0 layers; expected 1 to 2"):
        space.architecture(first | {"text.layer0.keep": False, "text.layer1.keep": False})
    shallow = space.architecture(first | {"image.depth": 1})
    assert "image.layer0.mlp" in shallow.values and "image.layer1.mlp" not in shallow.values


@pytest.mark.parametrize("join", ["concatenate", "sum"])
def test_embeddings_are_the_projections_of_both_towers_joined(join, options):
    space = Tower(TowerOptions(**options | {"join": join}))
    model = space.build(space.sample(np.random.default_rng(0))).eval()
    inputs = inputs_of()
    with torch.no_grad():
        z = model(**inputs)
        seen = model.image(pixel_values=inputs["pixel_values"]).last_hidden_state.mean(1)
        texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        states, mask = model.text(**texts).last_hidden_state, inputs["attention_mask"][..., None]
        read = (states * mask).sum(1) / mask.sum(1)
        parts = [
            F.layer_norm(F.linear(x, p.linear.weight, p.linear.bias), (8,))
            for x, p in ((seen, model.image_projection), (read, model.text_projection))
        ]
    by_hand = torch.cat(parts, 1) if join == "concatenate" else parts[0] + parts[1]
    torch.testing.assert_close(z, by_hand, atol=1e-5, rtol=1e-5)


def test_parameters_and_flops_are_those_of_both_towers_and_the_projections(space):
    tasks = load_tasks(DigitCaptions(), load_tokenizer(space.tokenizer), 12)
    space.prepare(tasks, 0)
    rng = np.random.default_rng(0)
    for architecture in (space.sample(rng) for _ in range(10)):
        model = space.build(architecture)
        measured = {"params": parameters(model), "flops": flops(model, example_inputs(space, 1, 9))}
        assert space.counts(architecture, 9) == measured
        assert measured["params"] - parameters(model.image) - parameters(model.text) == (16 + 1 + 32 + 1) * 8 + 4 * 8
    assert space.spaces["text"]._scores is not None  # its heads were ranked on the captions alone


def test_towers_of_the_wrong_kind_are_refused(options):
    with pytest.raises(ConfigError, match=r"space\.text is .* takes images; expected one that takes texts"):
        Tower(TowerOptions(**options | {"text": IMAGE}))
    with pytest.raises(ConfigError, match=r"space\.image is .* takes texts; expected one that takes images"):
        Tower(TowerOptions(**options | {"image": options["text"]}))


def test_digits_with_captions_follow_from_their_seed_and_are_covered_by_half():
    one, two = DigitCaptions().read(), DigitCaptions().read()
    other = DigitCaptions(CaptionOptions(noise_seed=1)).read()
    plain = digits()
    for name, examples in one.items():
        images, captions = images_of(examples), texts_of(examples)
        assert captions == texts_of(two[name]) != texts_of(other[name])
        assert np.array_equal(images, images_of(two[name]))
        blank, same = (images == 0).all((1, 3)), (images == plain[name]).all((1, 3))
        assert (blank | same).all() and blank.sum(1).min() == 4 and same.sum(1).min() == 4
    odd = [("odd" in text) == bool(digit % 2) for digit, v in enumerate(one.values()) for text in texts_of(v)]
    assert abs(np.mean(odd) - 0.8) < 1.96 * (0.8 * 0.2 / len(odd)) ** 0.5
    exact = texts_of(DigitCaptions(CaptionOptions(wrong=0.0)).read()["seven"])
    assert all("odd" in text and "large" in text for text in exact)


def test_image_and_caption_say_more_together_than_either_alone():
    """Nearest centroids from five examples: the 95% intervals of the paired differences lie above 0."""
    pool = tokenise(DigitCaptions().load(), lambda texts: ([[1]] * len(texts),) * 2)["meta-train"]
    tasks = list(episodes(pool, EpisodeShape(3, 5, 5), 0, 300))
    scores = {
        name: baseline_accuracies(name, pool, tasks)
        for name in ("TF-IDF, nearest centroid", "raw pixels, nearest centroid", "TF-IDF and raw pixels")
    }
    both = scores.pop("TF-IDF and raw pixels")
    for alone in scores.values():
        gain = both - alone
        assert alone.mean() > 0.4 and gain.mean() > 1.96 * gain.std() / len(gain) ** 0.5


def test_a_pool_of_both_gives_all_inputs_and_can_be_parted(tiny_model):
    pool = load_tasks(DigitCaptions(), load_tokenizer(str(tiny_model)), 12)["meta-train"]
    indices = np.array([4, 1])
    inputs = pool.inputs(indices)
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values"}
    texts, images = pool.part("text"), pool.part("image")
    assert (pool.modality, texts.modality, images.modality) == ("image-text", "text", "image")
    assert set(texts.inputs(indices)) == {"input_ids", "attention_mask"}
    assert list(images.inputs(indices)) == ["pixel_values"] and len(images) == len(pool)
    assert np.array_equal(images.inputs(indices)["pixel_values"], inputs["pixel_values"])


def written(folder, rows):
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ImageText(ImageTextOptions(path=folder / "data.jsonl", size=4, channels=1))


def test_images_with_texts_are_read_from_json_lines(tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for i in range(12):
        Image.fromarray(np.full((6, 6), 20 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
        rows.append({"image": f"images/{i}.png", "text": f"shade {i // 2}", "label": f"c{i % 3}"})
    source = written(tmp_path, rows)
    classes = source.read()
    assert [text for _, text in classes["c1"]] == ["shade 0", "shade 2", "shade 3", "shade 5"]
    assert classes["c1"][2][0].shape == (1, 4, 4) and (classes["c1"][2][0] == 140).all()
    split = source.load()
    assert split.modality == "image-text" and sum(map(len, split.splits.values())) == 3
    twice = written(tmp_path, [*rows, rows[0], {**rows[0], "text": "another"}]).load()
    assert twice.report == ("1 repeated image with text left out",)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": "none.png", "text": "a", "label": "x"}, r"data\.jsonl:1: .*none\.png cannot be read: No such file"),
        ({"text": "a", "label": "x"}, r"data\.jsonl:1: there is no field 'image'"),
        ({"image": "data.jsonl", "text": "a", "label": "x"}, r"data\.jsonl:1: .*data\.jsonl is not an image; expected"),
        ({"image": "a\0b", "text": "a", "label": "x"}, r"data\.jsonl:1: .*cannot be read: no file can have"),
    ],
)
def test_a_row_without_its_image_is_named(row, words, tmp_path):
    with pytest.raises(DataError, match=words):
        written(tmp_path, [row]).read()


@pytest.mark.parametrize("learner", marked(["protonet", "maml", "finetune"], ["protonet"]))
def test_both_towers_learn(learner, config):
    config["learner"] |= {"name": learner, "training": {"word_dropout": 0.2}}
    resolved = resolve(config)
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, 1)
    architecture = space.sample(np.random.default_rng(0))
    torch.manual_seed(1)
    before = {n: p.clone() for n, p in space.build(architecture).named_parameters()}
    result = result_of(evaluation.trial(architecture, seed=1, keep_above=0.0))
    after = dict(evaluation.restored(architecture, bytes(result.weights)).model.named_parameters())
    for tower in ("image", "text", "image_projection", "text_projection"):
        moved = [n for n, p in after.items() if n.startswith(f"{tower}.") and not torch.equal(p, before[n])]
        assert moved, f"{tower} did not learn"
    assert torch.equal(before[words := "text.embeddings.word_embeddings.weight"], after[words])


LOADED = """
import sys, torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
folder, file = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
assert not any(name.partition(".")[0] in ("nas_meta", "search_spaces") for name in sys.modules)
AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
inputs = torch.load(file, weights_only=True)
with torch.no_grad():
    torch.save(model(**inputs), file)
"""


@pytest.mark.slow
def test_a_search_ends_in_a_folder_that_transformers_loads_alone(config, tmp_path):
    run = search(config, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 2
    assert set(run.report["references"]) == {
        "TF-IDF, nearest centroid", "raw pixels, nearest centroid", "TF-IDF and raw pixels",
    }  # fmt: skip
    assert run.report["latency"]["inputs"] == "an image of 1×8×8 with a text of 8 tokens"
    folder = export(load_run(tmp_path / "run"), tmp_path / "model")
    card = (folder / "README.md").read_text()
    assert "AutoImageProcessor, AutoModel, AutoTokenizer" in card and "trust_remote_code=True" in card
    score = evaluate_folder(folder, run.config, episodes=20)
    assert score["accuracy"] == pytest.approx(run.test_of(run.best)["test_accuracy"])
    inside = run.config.plugin("space")(run.config.options["space"]).load(folder)
    torch.save(inputs_of(), tmp_path / "file")
    command = [sys.executable, "-c", LOADED, str(folder), str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        outside = torch.load(tmp_path / "file", weights_only=True)
        torch.testing.assert_close(outside, inside(**inputs_of()), atol=1e-5, rtol=1e-5)


def test_a_folder_that_holds_no_towers_is_refused(space, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="not a two-tower model"):
        space.load(tiny_model)
    model = space.build(space.sample(np.random.default_rng(0)))
    space.save(model, space.sample(np.random.default_rng(0)), tmp_path / "good")
    described = json.loads((tmp_path / "good" / "config.json").read_text())
    (tmp_path / "good" / "config.json").write_text(json.dumps(described | {"width": 9}))
    with pytest.raises(ValueError, match=r"does not match the config\.json in its folder"):
        space.load(tmp_path / "good")
