"""Data that Python objects hold: every kind gives the same rows, and a mistake is one sentence."""

import numpy as np
import pytest

from nas_meta.errors import DataError
from nas_meta.tasks.reading.in_memory import Columns, as_json, rows_of
from nas_meta.tasks.sources.files import SPLIT_NAMES, FileOptions, JSONLines

TEXTS, LABELS = ["lost card", "new card", "where is it?"], ["card", "card", "parcel"]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


def rows(data, **columns):
    return rows_of(data, Columns(**columns), tuple(SPLIT_NAMES))


def kinds():
    import pandas

    yield {"texts": TEXTS, "labels": LABELS}, {}
    yield {"label": np.array(LABELS), "text": tuple(TEXTS)}, {}
    yield (TEXTS, LABELS), {}
    yield list(zip(TEXTS, LABELS, strict=True)), {}
    yield ROWS, {}
    yield [{"Utterance": t, "intent": c, "id": 1} for t, c in zip(TEXTS, LABELS, strict=True)], {}
    yield {"a": TEXTS, "b": LABELS, "text": LABELS}, {"text": "a", "label": "b"}
    frame = pandas.DataFrame({"id": [1, 2, 3], "text": TEXTS, "label": pandas.Categorical(LABELS)}, index=[7, 7, 9])
    yield frame, {}
    yield pandas.DataFrame({0: TEXTS, 1: LABELS}), {"text": "0", "label": "1"}


@pytest.mark.parametrize("kind", range(9))
def test_every_kind_gives_the_same_rows(kind):
    pytest.importorskip("pandas")
    data, columns = list(kinds())[kind]
    assert rows(data, **columns) == {"": ROWS}


def test_a_dataset_has_the_names_of_its_classes_and_its_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    part = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features)
    expected = [{"text": "x", "label": "b"}, {"text": "y", "label": "a"}]
    assert rows(part) == {"": expected}
    assert rows(datasets.DatasetDict(train=part, test=part)) == {"train": expected, "test": expected}
    assert rows(datasets.DatasetDict(train=part)) == {"": expected}


def test_the_file_holds_what_was_given(tmp_path):
    given = {"": [{"text": 'line\u2028break\n"ü', "label": "é"}, {"text": "b", "label": "7"}]}
    splits = {"train": given[""], "validation": [{"text": "c", "label": "8"}], "test": [{"text": "d", "label": "9"}]}
    for number, data in enumerate((given, splits)):
        file = tmp_path / f"{number}.jsonl"
        file.write_bytes(as_json(data))
        read = JSONLines(FileOptions(path=file)).read()
        classes = read if number == 0 else {name: v for part in read.values() for name, v in part.items()}
        assert classes["é"] == [given[""][0]["text"]] and classes["7"] == ["b"]
    assert set(read) == {"meta-train", "meta-validation", "meta-test"}


def test_groups_are_kept():
    data = {"text": ["a", "b"], "label": ["good", "good"], "product": [1, 2]}
    found = rows(data, group="product")[""]
    assert found == [{"text": "a", "label": "good", "group": "1"}, {"text": "b", "label": "good", "group": "2"}]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"text": ["a", "b"], "label": ["x"]}, "data['text'] has 2 values and data['label'] has 1 value; expected"),
        ({"txt": ["a"], "label": ["x"]}, "data has no column 'text'; expected tasks.text to name one of txt, label"),
        ({"text": ["a"]}, "data has no column 'label'; expected tasks.label to name one of text"),
        ({"text": [], "label": []}, "data is empty"),
        ([], "data is empty"),
        ({}, "data has no column 'text'; it has no columns"),
        ({"text": ["a", "b"], "label": ["x", "x"]}, "data has a single class, 'x'; expected several"),
        ({"text": ["a", 3], "label": ["x", "y"]}, "data['text'][1] is an int 3; expected a text"),
        ({"text": ["a", np.zeros(2)], "label": ["x", "y"]}, "data['text'][1] is a ndarray; expected a text"),
        ({"text": ["a", float("nan")], "label": ["x", "y"]}, "data['text'][1] is missing (nan); expected a text, or"),
        ({"text": ["a", "b"], "label": ["x", None]}, "data['label'][1] is missing (None); expected the name or number"),
        ({"text": ["a", "b"], "label": ["x", 0.5]}, "data['label'][1] is a float 0.5; expected the name or number of"),
        ({"text": ["a", "b"], "label": ["x", " "]}, "data['label'][1] is empty"),
        ({"text": ["a", "\ud800"], "label": ["x", "y"]}, "data['text'][1] contains a lone surrogate"),
        ({"text": "ab", "label": ["x", "y"]}, "data['text'] is a str; expected a list"),
        ([("a", "x"), ("b",)], "data[1] is a tuple; expected a pair (text, label)"),
        ([("a", "x"), "by"], "data[1] is a str 'by'; expected a pair (text, label)"),
        ([("a", "x"), ("b", None)], "data[1][1] is missing (None)"),
        ("data.csv", "data is a str; expected a dict of texts and labels, a list of pairs"),
        (3, "data is an int; expected"),
        ({"train": ROWS, "test": [("b", 0.5)]}, "data['test'][0][1] is a float 0.5"),
    ],
)
def test_a_mistake_is_one_sentence(data, sentence):
    with pytest.raises(DataError) as raised:
        rows(data)
    assert sentence in str(raised.value)


def test_mistakes_in_a_frame_name_the_row():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", None], "label": ["x", "y"]})
    with pytest.raises(DataError, match=r"data\['text'\]\.iloc\[1\] is missing"):
        rows(frame)
    with pytest.raises(DataError, match=r"\.iloc\[1\] is missing \(<NA>\)"):
        rows(pandas.DataFrame({"text": ["a", "b"], "label": pandas.array([1, None], dtype="Int64")}))
    with pytest.raises(DataError, match="has several columns 'text'"):
        rows(pandas.DataFrame([["a", "b", "c"]], columns=["text", "text", "label"]))
