"""Fingerprints depend on content alone, and the difference between two of them names what changed."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas_meta.config.fingerprints.data import data_difference, fingerprint_of_tasks
from nas_meta.config.fingerprints.files import file_differences, named_files, named_models
from nas_meta.config.resolved import resolve
from nas_meta.tasks.pool import Pool, Tasks, tokenise
from nas_meta.tasks.source import SPLITS
from nas_meta.tasks.sources.files import CSV, JSONLines

WORDS = st.text("abcdefgh", min_size=1, max_size=6)
CLASSES = st.dictionaries(WORDS, st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=4)


def tasks_of(classes, pixels=None, groups=()):
    """Tasks with the same pool in each split."""
    labels = np.repeat(np.arange(len(classes)), [len(texts) for texts in classes.values()])
    texts = [text for members in classes.values() for text in members]
    return Tasks({split: Pool(list(classes), texts, labels, pixels=pixels, groups=groups) for split in SPLITS})


def read(source, rows, file):
    """The fingerprint of rows that a file source reads."""
    if source is CSV:
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *rows])
    else:
        file.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows))
    split = source(source.Options(path=file, min_examples=2)).load()
    return fingerprint_of_tasks(tokenise(split, lambda texts: ([[1]] * len(texts), [[0]] * len(texts))))


def rows_of(classes=8, examples=3):
    return [(f"text {i} of {label}", f"class{label}") for label in range(classes) for i in range(examples)]


def test_path_format_and_modification_time_do_not_matter(tmp_path):
    first = read(JSONLines, rows_of(), tmp_path / "a.jsonl")
    (tmp_path / "elsewhere").mkdir()
    other = read(CSV, rows_of(), tmp_path / "elsewhere" / "b.csv")
    os.utime(tmp_path / "elsewhere" / "b.csv", (1, 1))
    assert data_difference(first, other) is None
    assert data_difference(json.loads(json.dumps(first)), other) is None  # as the journal returns it


@given(CLASSES, st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_every_change_of_a_text_a_label_or_the_order_is_noticed(classes, data):
    before = fingerprint_of_tasks(tasks_of(classes))
    assert data_difference(before, fingerprint_of_tasks(tasks_of(classes))) is None
    changed = {name: list(texts) for name, texts in classes.items()}
    name = data.draw(st.sampled_from(sorted(changed)))
    kind = data.draw(st.sampled_from(["text", "label", "order", "group", "join"]))
    if kind == "text":
        changed[name][data.draw(st.integers(0, len(changed[name]) - 1))] += "x"
    elif kind == "label":
        changed = {f"{n}x" if n == name else n: texts for n, texts in changed.items()}
    elif kind == "order":
        changed[name] = data.draw(st.permutations(changed[name]))
    elif kind == "join":  # two texts become one with the same letters
        changed[name] = ["".join(changed[name][:2]), *changed[name][2:]]
    groups = ["g"] * len(changed) if kind == "group" else ()
    difference = data_difference(before, fingerprint_of_tasks(tasks_of(changed, groups=groups)))
    assert (difference is None) == (changed == classes and kind != "group")


def test_every_pixel_counts():
    classes, pixels = {"a": ["x", "y"]}, np.zeros((2, 1, 2, 2), np.uint8)
    before = fingerprint_of_tasks(tasks_of(classes, pixels))
    pixels[1, 0, 1, 1] = 1
    assert "class 'a'" in data_difference(before, fingerprint_of_tasks(tasks_of(classes, pixels)))


def test_the_order_of_classes_counts():
    one, other = (fingerprint_of_tasks(tasks_of({n: ["x"] for n in names})) for names in ("ab", "ba"))
    assert data_difference(one, other) == "the classes are in another order"


def test_the_difference_names_numbers_and_classes():
    def difference(now):
        whole = {"b": ["x"], "c": ["y"]}
        before, after = (
            fingerprint_of_tasks(Tasks(dict.fromkeys(SPLITS, tasks_of(whole)["meta-test"]) | {SPLITS[0]: pool}))
            for pool in (tasks_of({"a": ["one", "two"], "d": ["three"]})["meta-train"], now)
        )
        return data_difference(before, after)

    def train(classes):
        return tasks_of(classes)["meta-train"]

    assert difference(train({"a": ["one", "two"], "d": ["three"], "x": ["four"]})) == (
        "meta-train had 3 examples of 2 classes and now has 4 of 3; class 'x' is new"
    )
    assert difference(train({"a": ["one", "two"]})) == (
        "meta-train had 3 examples of 2 classes and now has 2 of 1; class 'd' is gone"
    )
    assert difference(train({"a": ["one"], "d": ["three"]})) == (
        "meta-train had 3 examples of 2 classes and now has 2 of 2; class 'a' had 2 examples and now has 1"
    )
    assert difference(train({"a": ["one", "TWO"], "d": ["THREE"]})) == (
        "the examples of class 'a' and of 1 more are others, or in another order"
    )


def test_a_class_that_moves_to_another_split_is_named():
    pools = {name: tasks_of({name: ["x"]})["meta-train"] for name in "abc"}
    before, now = (Tasks(dict(zip(SPLITS, (pools[n] for n in order), strict=True))) for order in ("abc", "bac"))
    difference = data_difference(fingerprint_of_tasks(before), fingerprint_of_tasks(now))
    assert difference == "class 'a' and 1 more are in another split"


@pytest.fixture
def model(tmp_path, tiny_model):
    """A copy of the tiny model, and the digests of a config with it."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)

    def digests():
        return named_models(resolve({"space": {"name": "bert-subnet", "model": str(folder)}}))["space.model"][1]

    return folder, digests


def test_only_files_that_are_loaded_count(model):
    folder, digests = model
    before = digests()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(before)
    (folder / "README.md").write_text("new")
    (folder / "pytorch_model.bin").write_bytes(b"never loaded beside safetensors")
    os.utime(folder / "model.safetensors", (1, 1))
    assert digests() == before
    (folder / "tokenizer.json").unlink()
    (folder / "added_tokens.json").write_text("{}")
    (folder / "config.json").write_text("{}")
    assert list(file_differences(before, digests())) == [
        "added_tokens.json is new",
        "config.json differs from the file that the run began with",
        "tokenizer.json is gone",
    ]


def test_models_in_nested_options_and_in_the_cache_of_the_hub_count(model, tmp_path, monkeypatch):
    folder, digests = model
    snapshot = tmp_path / "hub" / "models--org--bert" / "snapshots" / "abc"
    shutil.copytree(folder, snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    tower = {"name": "tower", "text": {"name": "bert-subnet", "model": "org/bert"}}
    models = named_models(resolve({"space": tower, "tasks": {"source": "digit-captions"}}))
    assert models == {"space.text.model": ("org/bert", digests())}


def test_packaged_models_and_unknown_names_have_none():
    assert named_models(resolve({})) == {}
    assert named_models(resolve({"space": {"name": "bert-subnet", "model": "org/never-loaded"}})) == {}


def test_plugin_files_count_wherever_a_config_names_them(fragile_learner):
    path = fragile_learner.rpartition(":")[0]
    config = resolve({"learner": {"name": fragile_learner}})
    before = named_files(config)
    assert list(before) == [path]
    with open(path, "a") as file:
        file.write("# a comment\n")
    assert named_files(config)[path] != before[path]
