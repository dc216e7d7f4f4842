"""Whatever a CSV or JSON Lines file holds, it is read, or refused with one sentence that names file and line."""

import json
import os
import subprocess
import sys

import pytest
from fuzzing import TEXTS, junk, many, sentence, tried
from hypothesis import given
from hypothesis import strategies as st

from nas_meta.errors import DataError
from nas_meta.tasks.source import SPLITS, TaskSource
from nas_meta.tasks.sources.files import CSV, FileOptions, JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer

texts = st.sampled_from(TEXTS[:5]) | st.text(max_size=12)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(str(tiny_model))


def whole(source, tokenizer):
    """A source that is read at all is tokenised, and no example that was kept is lost or stands twice."""
    tasks = sentence(load_tasks, source, tokenizer, 8)
    for pool in tasks.pools.values() if tasks else ():
        assert len(set(pool.texts)) == len(pool.texts) == sum(map(len, pool.members)) == len(pool.lengths)


@tried(150, 4000)
@pytest.mark.parametrize("reader", [CSV, JSONLines])
def test_bytes_in_the_place_of_examples(reader, cases, tmp_path, tokenizer):
    file = tmp_path / "data"
    pieces = [
        "text",
        "label",
        ",",
        '"',
        "\n",
        "\r\n",
        "\r",
        "\0",
        "{",
        "}",
        "[",
        "]",
        ":",
        "null",
        "NaN",
        "1e999",
        "true",
        '{"text": "a b", "label": "x"}',
        '{"text": "a c", "label": "y"}',
        "text,label\n",
        "a,x\n",
        '"a\nb",x\n',
        "\ufeff",
        "\u2028",
        "\\ud800",
        "9" * 5000,
        "[" * 3000,
    ]
    content = st.binary(max_size=100) | st.lists(st.sampled_from(pieces) | texts, max_size=20).flatmap(
        lambda parts: st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-8", "utf-8"]).map(
            lambda encoding: "".join(parts).encode(encoding, "replace")
        )
    )

    @many(cases)
    @given(content)
    def property(data):
        file.write_bytes(data)
        whole(reader(FileOptions(path=file)), tokenizer)

    property()


@tried(100, 4000)
def test_rows_of_every_type_in_json_lines(cases, tmp_path, tokenizer):
    file = tmp_path / "data.jsonl"
    value = texts | junk
    row = st.fixed_dictionaries({"text": value, "label": value}) | st.dictionaries(st.text(max_size=5), junk) | junk
    good = st.fixed_dictionaries({"text": texts, "label": st.sampled_from("abcdef")})

    @many(cases)
    @given(st.lists(good, max_size=20), st.lists(row, max_size=2))
    def property(fine, odd):
        file.write_text("\n".join(filter(None, map(written, fine + odd))))
        whole(JSONLines(FileOptions(path=file)), tokenizer)

    property()


def written(row):
    """A row as JSON; None where Python refuses to write its numbers in digits."""
    try:
        return json.dumps(row)
    except ValueError:
        return None


@tried(100, 3000)
def test_what_a_plugin_reads_may_be_anything(cases, tokenizer):
    classes = st.dictionaries(texts | junk.filter(hashable), st.lists(texts | junk, max_size=4) | junk, max_size=4)

    @many(cases)
    @given(classes | st.fixed_dictionaries(dict.fromkeys(SPLITS, classes | junk)) | junk)
    def property(found):
        class Odd(TaskSource):
            def read(self):
                return found

        whole(Odd(), tokenizer)

    property()


def hashable(value):
    return not isinstance(value, (list, dict))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"text,label\nhello, world,x\n", r"a\.csv:2: the row has 3 values, but the header has 2; expected"),
        ("a.csv", b"text,label\nhello\n", r"a\.csv:2: there is no field 'label'; the row has 1 of the 2 values"),
        ("a.csv", b"text,label,text\na,x,b\n", r"a\.csv:1: 2 columns are named 'text'"),
        ("a.csv", b'text,label\n"a,x\nb,y\n', r"a\.csv:2: not CSV \(a quote that this row opens is never closed"),
        ("a.csv", b"text,label\na,\n", r"a\.csv:2: 'label' is empty; expected a class name"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n' + b"[" * 10**6, r"a\.jsonl:2: not JSON"),
        ("a.jsonl", b'{"text": "a", "label": ' + b"9" * 5000 + b"}", r"a\.jsonl:1: not JSON"),
        ("a.jsonl", b'{"text": "\\ud800", "label": "x"}', r"a\.jsonl:1: 'text' contains a lone surrogate"),
        ("a.jsonl", b'{"text": "a", "label": null}', r"a\.jsonl:1: 'label' is empty; expected a string"),
        ("a.jsonl", b'{"text": "a", "label": NaN}', r"a\.jsonl:1: 'label' is float; expected a string"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    reader = CSV if name.endswith("csv") else JSONLines
    with pytest.raises(DataError, match=words):
        reader(FileOptions(path=tmp_path / name)).load()


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(DataError, match=words):
            JSONLines(FileOptions(path=path)).load()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_marks_line_ends_and_nul_do_not_matter(encoding, newline, tmp_path, tokenizer):
    rows = [(f"text {i}\0 é", f"c{i % 3}") for i in range(12)]
    (tmp_path / "a.jsonl").write_bytes(
        newline.join(json.dumps({"text": t, "label": c}, ensure_ascii=False) for t, c in rows).encode(encoding)
    )
    lines = ["label,text", *(f'{c},"{t}"' for t, c in rows)]
    (tmp_path / "a.csv").write_bytes(newline.join(lines).encode(encoding))
    read = [JSONLines(FileOptions(path=tmp_path / "a.jsonl")).read()]
    if sys.version_info >= (3, 11):  # before, the csv module refuses a NUL
        read.append(CSV(FileOptions(path=tmp_path / "a.csv")).read())
    for classes in read:
        assert {name: len(texts) for name, texts in classes.items()} == {"c0": 4, "c1": 4, "c2": 4}


def test_a_line_of_ten_megabytes_is_cut_like_any_other(tmp_path, tokenizer):
    file = tmp_path / "long.jsonl"
    with file.open("w") as stream:
        for i in range(12):
            text = "redfox é," * 10**6 if i < 3 else "redfox"
            stream.write(json.dumps({"text": f"{i} {text}", "label": f"c{i % 3}"}, ensure_ascii=False) + "\n")
    lengths = [
        int(n)
        for pool in load_tasks(JSONLines(FileOptions(path=file)), tokenizer, 16).pools.values()
        for n in pool.lengths
    ]
    assert sorted(lengths) == [4] * 9 + [16] * 3


def test_classes_of_one_example_are_left_out_and_counted(tmp_path):
    """Once this took time with the square of the classes."""
    file = tmp_path / "rare.jsonl"
    file.write_text("".join(json.dumps({"text": f"t{i}", "label": f"c{i}"}) + "\n" for i in range(50_000)))
    split = JSONLines(FileOptions(path=file)).load()
    assert split.report == ("50,000 classes with fewer than 2 distinct texts left out",)
    assert not any(split.splits.values())


MILLION = """
import json, sys, time
from pathlib import Path
from nas_meta.tasks.sources.files import FileOptions, JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer
file, model = Path(sys.argv[1]), sys.argv[2]
with file.open("w") as stream:
    for i in range(10**6):
        stream.write(json.dumps({"text": f"redfox bluecat {i} pinkowl goldbee", "label": f"c{i % 1000}"}) + "\\n")
started = time.perf_counter()
tasks = load_tasks(JSONLines(FileOptions(path=file)), load_tokenizer(model), 32)
print(sum(len(pool.texts) for pool in tasks.pools.values()), sum(len(pool.members) for pool in tasks.pools.values()))
print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
status = Path("/proc/self/status").read_text()  # getrusage would count the memory of the process that started this one
print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_million_rows(tmp_path, tiny_model):
    command = [sys.executable, "-c", MILLION, str(tmp_path / "million.jsonl"), str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stderr
    rows, kilobytes = done.stdout.splitlines()
    print(done.stderr, kilobytes)
    assert rows == "1000000 1000" and int(kilobytes) < 2 * 10**6
