"""Data of many tasks with the same few classes: splits divide the tasks, and an episode holds one of them."""

import json

import numpy as np
import pytest

from nas_meta.errors import ConfigError, DataError
from nas_meta.tasks.episodes import EpisodeShape, check_shape, episode
from nas_meta.tasks.pool import tokenise
from nas_meta.tasks.source import SPLITS, SourceOptions, TaskSource
from nas_meta.tasks.sources.files import CSV, FileOptions, JSONLines
from strategies.one_shot.bilevel import split_classes


def reviews(products, labels=("neg", "pos"), texts=4):
    return [
        {"text": f"{label} {product} {i}", "label": label, "product": f"p{product}"}
        for product in range(products)
        for label in labels
        for i in range(texts)
    ]


def loaded(tmp_path, rows, **options):
    file = tmp_path / "reviews.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    source = JSONLines(FileOptions(path=file, group="product", **options))
    split = source.load()
    return source, split, tokenise(split, lambda texts: ([[1] for _ in texts],) * 2)


def test_splits_divide_groups_and_episodes_hold_one(tmp_path):
    source, split, tasks = loaded(tmp_path, reviews(8))
    groups = {s: {source.group_of(name) for name in split.splits[s]} for s in SPLITS}
    assert [len(groups[s]) for s in SPLITS] == [4, 2, 2]
    assert len(set.union(*groups.values())) == 8  # no group is in two splits
    shape = EpisodeShape(2, 1, 2)
    check_shape(tasks, shape)
    for name in SPLITS:
        pool, drawn = tasks[name], set()
        for index in range(60):
            one = episode(pool, shape, 0, index)
            assert np.array_equal(one.indices, episode(pool, shape, 0, index).indices)
            classes = {pool.classes[c] for c in pool.labels[one.indices]}
            assert len(classes) == 2 and len({source.group_of(c) for c in classes}) == 1
            drawn |= {source.group_of(c) for c in classes}
        assert drawn == groups[name]
    assert {source.spoken(name) for name in split.splits["meta-train"]} == {"neg", "pos"}


def test_groups_with_too_few_classes_are_not_drawn(tmp_path):
    rows = [row for row in reviews(12, ("neg", "neu", "pos")) if row["product"] < "p5" or row["label"] != "neu"]
    _, _, tasks = loaded(tmp_path, rows, split_seed=1)
    for pool in tasks.pools.values():
        for index in range(40 if pool.most_ways == 3 else 0):
            one = episode(pool, EpisodeShape(3, 1, 1), 0, index)
            assert len({pool.groups[c] for c in pool.labels[one.indices]}) == 1


@pytest.mark.parametrize(
    ("products", "ways", "sentence"),
    [
        (8, 3, "no group of meta-train has as many classes; expected at most 2, the classes of the largest group"),
        (2, 2, "no group of meta-test has as many classes; expected such a group in each split, but the data have 2"),
        (3, 2, "no group of meta-validation has as many classes; expected such a group in each split, as with "
         "tasks.fractions: [0.34, 0.33, 0.33]; the data have 3"),
    ],
)  # fmt: skip
def test_too_few_groups_are_refused_with_what_would_suffice(products, ways, sentence, tmp_path):
    _, _, tasks = loaded(tmp_path, reviews(products))
    with pytest.raises(DataError) as error:
        check_shape(tasks, EpisodeShape(ways, 1, 1))
    assert str(error.value) == f"tasks.ways is {ways}, but {sentence}"
    check_shape(loaded(tmp_path, reviews(3), fractions=(0.34, 0.33, 0.33))[2], EpisodeShape(2, 1, 1))


def test_spellings_of_groups_and_classes_are_merged_and_reported(tmp_path):
    rows = reviews(4)
    rows[0]["product"], rows[1]["label"] = "p0 ", "neg "
    _, split, _ = loaded(tmp_path, rows)
    assert sum(map(len, split.splits.values())) == 8
    assert split.report == (
        "class names that differ in white space or Unicode form alone merged: 'p0 : neg' into 'p0: neg', "
        "'p0: neg ' into 'p0: neg'",
    )


def test_a_group_in_csv(tmp_path):
    lines = ["product;text;label", *(";".join((r["product"], r["text"], r["label"])) for r in reviews(4))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    source = CSV(CSV.Options(path=tmp_path / "a.csv", group="product"))
    assert set(source.read()) == {f"p{p}: {label}" for p in range(4) for label in ("neg", "pos")}
    with pytest.raises(DataError, match=r"a\.csv:1: there is no column 'produce'; did you mean 'product'"):
        CSV(CSV.Options(path=tmp_path / "a.csv", group="produce")).read()


def test_bad_groups_are_named(tmp_path):
    with pytest.raises(DataError, match=r"reviews\.jsonl:1: 'product' is empty; expected the name of a group"):
        loaded(tmp_path, [{"text": "a", "label": "x", "product": " "}])
    rows = [{"text": "a", "label": "b: c", "product": "a"}, {"text": "b", "label": "c", "product": "a: b"}]
    with pytest.raises(
        DataError, match=r"reviews\.jsonl:2: the group 'a: b' with the class 'c' has the name of another"
    ):
        loaded(tmp_path, rows)


class Halves(TaskSource):
    """A plugin whose classes have groups, or only some of them."""

    def __init__(self, group):
        super().__init__(SourceOptions(min_examples=2))
        self.group = group

    def read(self):
        return {f"c{i}": [f"{i} a", f"{i} b"] for i in range(16)}

    def group_of(self, name):
        return self.group(name)


def test_a_plugin_can_group_its_classes():
    split = Halves(lambda name: f"g{int(name[1:]) // 4}").load()
    assert [len(split.splits[s]) for s in SPLITS] == [8, 4, 4]
    with pytest.raises(
        DataError, match=r"group_of\(\) returned '' for the class 'c1'; expected the name of a group for"
    ):
        Halves(lambda name: "g" if name == "c0" else "").load()


def test_one_shot_strategies_divide_groups(tmp_path):
    _, _, tasks = loaded(tmp_path, reviews(16))
    pool = tasks["meta-train"]
    lower, upper = split_classes(pool, 0.5, 2, 0)
    assert not set(lower.groups) & set(upper.groups) and len(set(lower.groups)) == len(set(upper.groups)) == 4
    for part in (lower, upper):
        one = episode(part, EpisodeShape(2, 1, 1), 0, 0)
        assert len({part.groups[c] for c in part.labels[one.indices]}) == 1
    with pytest.raises(ConfigError, match=r"strategy\.held_out is 0\.05, which gives 8 of 8 meta-train groups"):
        split_classes(pool, 0.05, 2, 0)
