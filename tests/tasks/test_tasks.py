"""Splits are disjoint, episodes are reproducible, and bad data is named by file and line."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_meta.errors import ConfigError, DataError
from nas_meta.tasks.episodes import EpisodeShape, check_shape, default_ways, episode
from nas_meta.tasks.packaged_models import verify
from nas_meta.tasks.pool import Pool, Tasks, tokenise
from nas_meta.tasks.source import SPLITS, SplitClasses, assert_disjoint, clean, split_classes
from nas_meta.tasks.sources.files import CSV, FileOptions, JSONLines
from nas_meta.tasks.sources.icd10 import ICD10


def pool_of(sizes):
    classes = {f"c{i}": [f"{i} {j}" for j in range(n)] for i, n in enumerate(sizes)}
    split = SplitClasses(dict.fromkeys(SPLITS, classes))
    return tokenise(split, lambda texts: ([list(range(1, 2 + len(t) % 5)) for t in texts],) * 2)


@given(st.integers(3, 40), st.integers(0, 1000))
def test_splits_are_disjoint_and_complete(classes, seed):
    given_classes = {f"c{i}": [f"text {i}"] for i in range(classes)}
    parts = split_classes(given_classes, (0.5, 0.25, 0.25), seed)
    assert_disjoint(parts)
    assert {n for p in parts.values() for n in p} == set(given_classes)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_an_episode_follows_from_seed_and_index(seed, index):
    pool = pool_of([7, 9, 8, 12])["meta-train"]
    shape = EpisodeShape(3, 2, 4)
    one, two = episode(pool, shape, seed, index), episode(pool, shape, seed, index)
    assert np.array_equal(one.indices, two.indices)
    assert one.support.shape == (3, 2) and one.query.shape == (3, 4)
    assert len(set(one.indices)) == 3 * 6
    rows = pool.labels[np.concatenate([one.support, one.query], axis=1)]
    assert all(len(set(row)) == 1 for row in rows) and len({row[0] for row in rows}) == 3


def test_episodes_differ_by_index():
    pool = pool_of([20] * 10)["meta-train"]
    drawn = {tuple(episode(pool, EpisodeShape(5, 1, 5), 0, i).indices) for i in range(50)}
    assert len(drawn) == 50


def test_repeated_ambiguous_and_rare_are_left_out_and_reported():
    cleaned, report = clean({"a": ["x", "x ", "y", "z"], "b": ["z", "u", "v", ""], "c": ["w"]}, 2)
    assert cleaned == {"a": ["x", "y"], "b": ["u", "v"]}
    assert report == [
        "2 repeated or empty texts left out",
        "1 texts that belong to several classes left out",
        "1 classes with fewer than 2 distinct texts left out",
    ]


def test_padding_holds_every_token_once():
    pool = pool_of([3, 3])["meta-train"]
    ids, mask = pool.batch(np.array([4, 0]))
    assert mask.sum(1).tolist() == pool.lengths[[4, 0]].tolist()
    assert ids[0, mask[0] == 1].tolist() == pool.tokens[pool.offsets[4] : pool.offsets[5]].tolist()


def test_too_many_ways_or_shots_are_refused():
    tasks = pool_of([6, 6, 6])
    with pytest.raises(DataError, match=r"tasks.ways is 4, but meta-train has 3 classes"):
        check_shape(tasks, EpisodeShape(4, 1, 1))
    with pytest.raises(DataError, match=r"tasks.shots \+ tasks.queries is 7, but the class 'c0'"):
        check_shape(tasks, EpisodeShape(3, 2, 5))


def test_three_files_with_a_shared_class_are_refused(tmp_path):
    for name in ("train", "valid", "test"):
        rows = [{"text": f"{name} {i}", "label": "same" if name != "test" else "other"} for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = FileOptions(**{n: tmp_path / f"{n}.jsonl" for n in ("train", "valid", "test")})
    with pytest.raises(DataError, match="the class 'same' is in both meta-train and meta-validation"):
        JSONLines(options).load()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"text": "a", "label": "x"}\n{"text": "b"}', r"data.jsonl:2: there is no field 'label'"),
        (b'{"txt": "a", "label": "x"}', r":1: there is no field 'text'; did you mean 'txt'"),
        (b"not json", r":1: not JSON"),
        (b"[1]", r":1: a list; expected an object"),
        (b'{"text": ["a"], "label": "x"}', r":1: 'text' is list; expected a string"),
        (b"\xff\xfe", r"not UTF-8"),
        (b"", r"contains no examples"),
    ],
)
def test_bad_json_lines_are_named_by_line(tmp_path, content, sentence):
    file = tmp_path / "data.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        JSONLines(FileOptions(path=file)).load()


def test_csv_with_quotes_and_a_byte_order_mark(tmp_path):
    file = tmp_path / "data.csv"
    file.write_text('\ufeffutterance,intent\n"a, ""b""",x\nc,x\nd,y\ne,y\n', encoding="utf-8")
    classes = CSV(FileOptions(path=file, text="utterance", label="intent")).read()
    assert classes == {"x": ['a, "b"', "c"], "y": ["d", "e"]}


def test_a_missing_file_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        CSV(FileOptions(path=tmp_path / "none.csv")).load()


def test_icd10_blocks_hold_diagnoses_and_no_encounters():
    pytest.importorskip("simple_icd_10_cm")
    split = ICD10().load()
    sizes = {name: len(classes) for name, classes in split.splits.items()}
    assert sum(sizes.values()) > 200 and sizes["meta-train"] > sizes["meta-test"]
    every = {n: t for part in split.splits.values() for n, t in part.items()}
    assert "Cholera due to Vibrio cholerae 01, biovar cholerae" in every["A00-A09"]
    assert not any("initial encounter" in t for texts in every.values() for t in texts)


def test_weights_with_another_hash_are_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"not the weights")
    with pytest.raises(ConfigError, match="expected 53aa"):
        verify(file, "53aa")


@pytest.mark.parametrize(("classes", "ways"), [(40, 5), (20, 5), (12, 3), (8, 2)])
def test_the_ways_are_what_the_classes_allow(classes, ways):
    splits = split_classes(
        {f"class{i}": [f"text {i} {j}" for j in range(3)] for i in range(classes)}, (0.5, 0.25, 0.25), 0
    )
    tasks = Tasks({split: Pool(list(members), [], np.arange(len(members))) for split, members in splits.items()})
    assert default_ways(tasks) == ways


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((6, 3, 3), "tasks.ways is 5, but meta-validation has 3 classes; set tasks.ways: 3, or add classes"),
        ((6, 4, 2), "tasks.ways is 5, but meta-validation has 4 classes; set tasks.ways: 2, or add classes"),
        ((6, 1, 3), "has 1 class; expected at least 2 in every split, by more classes or another tasks.fractions"),
    ],
)
def test_too_few_classes_are_answered_with_what_to_set(sizes, words):
    pools = {
        s: Pool([f"{s} {i}" for i in range(n)], [], np.repeat(np.arange(n), 9))
        for s, n in zip(SPLITS, sizes, strict=True)
    }
    with pytest.raises(DataError, match=re.escape(words)):
        check_shape(Tasks(pools), EpisodeShape(5, 1, 1))
