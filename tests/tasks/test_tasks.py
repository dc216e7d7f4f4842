"""Splits are disjoint, episodes are reproducible, and bad data is named by file and line."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_meta.errors import ConfigError, DataError
from nas_meta.tasks.episodes import EpisodeShape, check_shape, default_ways, episode
from nas_meta.tasks.packaged_models import verify
from nas_meta.tasks.pool import Pool, Tasks, tokenise
from nas_meta.tasks.source import SPLITS, SourceOptions, SplitClasses, TaskSource, assert_disjoint, clean, split_classes
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
        "1 text that belongs to several classes left out",
        "1 class with fewer than 2 distinct texts left out",
    ]


class Given(TaskSource):
    """A source of given examples."""

    def __init__(self, found, **options):
        super().__init__(SourceOptions(min_examples=2, **options))
        self.found = found

    def read(self):
        return self.found


def tasks_of(classes, **options):
    """The tasks of a number of classes of two texts each, which are split by the options."""
    found = {f"c{i}": [f"{i} a", f"{i} b"] for i in range(classes)}
    return tokenise(Given(found, **options).load(), lambda texts: ([[1] for _ in texts],) * 2)


@pytest.mark.parametrize(
    ("classes", "ways", "sentence"),
    [
        (2, 2, "tasks.ways is 2, but meta-train has 1 class; no class is in two splits, so even 2-way episodes need 6 "
         "classes with tasks.fractions: [0.34, 0.33, 0.33], but there are 2 classes; or tasks.group, a field that "
         "divides the examples into tasks of the same few classes"),
        (5, 3, "tasks.ways is 3, but meta-train has 2 classes; no class is in two splits, so even 2-way episodes need "
         "6 classes with tasks.fractions: [0.34, 0.33, 0.33], but there are 5 classes; or tasks.group, a field that "
         "divides the examples into tasks of the same few classes"),
        (6, 2, "tasks.ways is 2, but meta-validation has 1 class; expected an even division of the 6 classes, such as "
         "tasks.fractions: [0.34, 0.33, 0.33]"),
        (12, 4, "tasks.ways is 4, but meta-validation has 3 classes; expected at most 3, or an even division of the 12 "
         "classes, such as tasks.fractions: [0.34, 0.33, 0.33]"),
        (12, 5, "tasks.ways is 5, but meta-validation has 3 classes; expected at most 3, or 15 classes in all, of "
         "which there are 12"),
    ],
)  # fmt: skip
def test_too_few_classes_are_refused_with_what_would_suffice(classes, ways, sentence):
    with pytest.raises(DataError) as error:
        check_shape(tasks_of(classes), EpisodeShape(ways, 1, 1))
    assert str(error.value) == sentence


@pytest.mark.parametrize("classes", [6, 7, 8, 12, 15, 23, 60])
def test_the_fractions_that_are_suggested_suffice(classes):
    check_shape(tasks_of(classes, fractions=(0.34, 0.33, 0.33)), EpisodeShape(classes // 3, 1, 1))


def test_classes_that_were_left_out_are_part_of_the_reason():
    found = {f"c{i}": ["a", "b"] if i < 2 else [f"{i}"] for i in range(9)}
    tasks = tokenise(Given(found).load(), lambda texts: ([[1] for _ in texts],) * 2)
    with pytest.raises(DataError, match="there are 0 classes; 9 classes with fewer than 2 distinct texts left out"):
        check_shape(tasks, EpisodeShape(2, 1, 1))


def test_splits_of_the_same_classes_are_joined_when_asked_for():
    parts = {split: {f"c{i}": [f"{split} {i} a", f"{split} {i} b"] for i in range(12)} for split in SPLITS}
    with pytest.raises(DataError) as error:
        Given(parts).load()
    assert str(error.value) == (
        "task source Given: the class 'c0' is in both meta-train and meta-validation, as are 11 more; expected every "
        "class in one split, or tasks.join_splits: true, which joins the splits and splits their classes anew"
    )
    split = Given(parts, join_splits=True).load()
    assert [len(split.splits[s]) for s in SPLITS] == [6, 3, 3]
    assert {len(examples) for part in split.splits.values() for examples in part.values()} == {6}


def test_files_of_the_same_classes_are_joined_when_asked_for(tmp_path):
    for name in ("train", "valid", "test"):
        rows = [{"text": f"{name} {i}", "label": f"c{i % 12}"} for i in range(24)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    paths = {n: tmp_path / f"{n}.jsonl" for n in ("train", "valid", "test")}
    with pytest.raises(DataError, match=r"tasks\.join_splits: true"):
        JSONLines(FileOptions(**paths)).load()
    split = JSONLines(FileOptions(**paths, join_splits=True)).load()
    assert [len(split.splits[s]) for s in SPLITS] == [6, 3, 3]


def test_class_names_are_normalised_as_texts_are():
    """Labels typed by people end in spaces; keyboards and file systems write é as one character or as two."""
    found = {
        "card": ["a", "b"],
        "card ": ["c", "a"],
        "\u00a0card\t": ["d"],
        "cafe\u0301": ["e\u0301"],
        "caf\u00e9": ["\u00e9", "f"],
    }
    found |= {" alone ": ["g", "h"], "x": ["i", "j"]}
    split = Given(found).load()
    classes = {name: examples for part in split.splits.values() for name, examples in part.items()}
    assert classes == {
        "card": ["a", "b", "c", "d"], "caf\u00e9": ["\u00e9", "f"], "alone": ["g", "h"], "x": ["i", "j"]
    }  # fmt: skip
    assert list(split.report) == [
        "class names that differ in white space or Unicode form alone merged: 'card ' into 'card', "
        "'\u00a0card\t' into 'card', 'cafe\\u0301' into 'caf\u00e9'",
        "2 repeated or empty texts left out",
    ]


def test_class_names_are_normalised_before_splits_are_compared():
    parts = {SPLITS[0]: {"card": ["a", "b"]}, SPLITS[1]: {"card ": ["c", "d"]}, SPLITS[2]: {"x": ["e", "f"]}}
    with pytest.raises(DataError, match="the class 'card' is in both meta-train and meta-validation"):
        Given(parts).load()


def test_few_merged_names_are_shown():
    names = [f"c{i}{space}" for i in range(5) for space in ("", " ")]
    assert (
        Given({name: ["a " + name, "b" + name] for name in names})
        .load()
        .report[0]
        .endswith("'c0 ' into 'c0', 'c1 ' into 'c1', 'c2 ' into 'c2' and 2 more")
    )


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
        (b"[1]", r":1: a number; expected an object"),
        (b'{"text": ["a"], "label": "x"}', r":1: 'text' is list; expected a string"),
        (b'{"text": "\x8d"', r":1: the byte 0x8D at offset 10 is not UTF-8"),
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
