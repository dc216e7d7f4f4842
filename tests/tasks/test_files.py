"""CSV and JSON as other programs write them: encodings, delimiters, quotes, empty rows and splits are recognised."""

import json
import random

import pytest
from fuzzing import many, tried
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nas_meta.errors import DataError
from nas_meta.tasks.reading.encoding import undecodable
from nas_meta.tasks.source import SPLITS
from nas_meta.tasks.sources.files import CSV, CSVOptions, FileOptions, JSONLines


def read(tmp_path, content, source=CSV, **options):
    """Read a file with this content; return its classes and the notes about it, without the path."""
    file = tmp_path / "data"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    reader = source(source.Options(path=file, **options))
    classes = reader.read()
    return classes, [note.removeprefix(f"{file} ") for note in reader.reading_notes()]


def refusal(tmp_path, content, source=CSV, **options):
    with pytest.raises(DataError) as error:
        read(tmp_path, content, source, **options)
    return str(error.value).removeprefix(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("delimiter", "name"), [(",", None), (";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
@pytest.mark.parametrize("sep_line", [False, True])
@pytest.mark.parametrize("quote", ["", '"'])
def test_the_delimiter_is_recognised_by_the_header(delimiter, name, sep_line, quote, tmp_path):
    rows = [("id", "text", "label"), ("1", f"a{quote and delimiter} b", "x"), ("2", "c, d; e" if quote else "c", "y")]
    lines = [delimiter.join(f"{quote}{value}{quote}" for value in row) for row in rows]
    content = "\r\n".join([f"sep={delimiter}"] * sep_line + lines)
    classes, notes = read(tmp_path, content)
    assert classes == {"x": [rows[1][1]], "y": [rows[2][1]]}
    assert notes == ([f"is read with {name} between its values"] if name else [])


def test_any_other_delimiter_is_given(tmp_path):
    assert read(tmp_path, "text#label\na;b#x\n", delimiter="#") == ({"x": ["a;b"]}, [])
    assert read(tmp_path, "text\tlabel\na\tx\n", delimiter="tab")[0] == {"x": ["a"]}
    with pytest.raises(ValidationError, match="'::' cannot separate values; expected one character"):
        CSVOptions(path=tmp_path, delimiter="::")


@pytest.mark.parametrize(
    ("codec", "note"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("latin-1", "Windows-1252"),
        ("cp1252", "Windows-1252"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16-LE"),
        ("utf-16-be", "UTF-16-BE"),
        ("utf-32", "UTF-32"),
    ],
)
@pytest.mark.parametrize("source", [CSV, JSONLines])
def test_the_encoding_is_recognised(codec, note, source, tmp_path):
    text = "crème brûlée, bitte" + " – 3 €" * (codec != "latin-1")
    rows = {
        CSV: f'text,label\n"{text}",süß\n',
        JSONLines: json.dumps({"text": text, "label": "süß"}, ensure_ascii=False),
    }
    classes, notes = read(tmp_path, rows[source].encode(codec), source)
    assert classes == {"süß": [text]}
    assert [n.split(" is read as ")[-1].split(":")[0].split()[-1] for n in notes] == ([note] if note else [])
    assert read(tmp_path, rows[source].encode(codec), source, encoding=codec) == (classes, [])


@pytest.mark.parametrize("codec", ["cp1251", "koi8-r", "shift_jis", "gb18030"])
def test_another_alphabet_is_never_guessed(codec, tmp_path):
    text = "добрый день, как дела" if codec in ("cp1251", "koi8-r") else "東京の天気を教えて"
    content = f'text,label\n"{text}",x\n'.encode(codec)
    assert "is not UTF-8; expected UTF-8 text, or the encoding of the file in tasks.encoding" in refusal(
        tmp_path, content
    )
    assert read(tmp_path, content, encoding=codec) == ({"x": [text]}, [])


def test_damaged_utf8_is_not_read_as_another_encoding(tmp_path):
    content = "text,label\ngrüßen,x\n".encode() + b"gr\xfc,x\n"
    assert refusal(tmp_path, content).startswith("data:3: the byte 0xFC at offset 24 is not UTF-8")


def test_the_offset_and_the_line_of_a_byte_are_true(tmp_path):
    """Decoders count from the start of the block that they are given."""
    rng = random.Random(0)
    for _ in range(5):
        lines = [b"word " * rng.randrange(60) + b",x" for _ in range(rng.randrange(2, 30_000))]
        content = bytearray(b"text,label\r\n" + b"\r\n".join(lines))
        offset = rng.randrange(12, len(content))
        content[offset] = 0xE9
        if b"\xe9\n" in content:  # half of a line break: the lines differ
            continue
        (tmp_path / "late").write_bytes(content)
        bad = undecodable(tmp_path / "late", "utf-8")
        assert bad == (offset, content[:offset].count(b"\n") + 1, "0xE9")
    (tmp_path / "wide").write_bytes("é\n".encode("utf-16") * 1 + b"\x00\xd8a\x00")
    assert undecodable(tmp_path / "wide", "utf-16") == (6, 2, "0x00")


def test_an_unknown_encoding_is_a_sentence(tmp_path):
    for name in ("utf9", "rot13", "base64", "\0"):
        with pytest.raises(ValidationError, match="there is no encoding"):
            FileOptions(path=tmp_path, encoding=name)


def test_empty_rows_and_columns_are_skipped(tmp_path):
    content = "\n,,,\ntext,label,,\na,x,,\n\n , ,,\nb,x,,,,\n,,,\n,,,\n"
    assert read(tmp_path, content) == ({"x": ["a", "b"]}, [])


def test_spaces_after_delimiters(tmp_path):
    assert read(tmp_path, 'text, label\n"a, b", x\nc, "y, z"\n') == ({"x": ["a, b"], "y, z": ["c"]}, [])


def test_a_long_text_is_read_and_the_limit_of_the_process_stays(tmp_path):
    import csv

    limit = csv.field_size_limit()
    assert read(tmp_path, f"text,label\n{'word ' * 10**6},x\n")[0] == {"x": ["word " * 10**6]}
    assert csv.field_size_limit() == limit


def test_backslashes_before_quotes(tmp_path):
    content = 'text,label\n"he said \\"hi, there\\", C:\\new",x\n"ends in \\\\",y\n"plain ""quotes""",z\n'
    classes, notes = read(tmp_path, content)
    assert classes == {"x": ['he said "hi, there", C:\\new'], "y": ["ends in \\"], "z": ['plain "quotes"']}
    assert notes == ["is read with backslashes before quotes inside quotes"]
    # In plain CSV a backslash means nothing, and a field may end in one.
    assert read(tmp_path, 'text,label\n"C:\\new\\",x\n"b",y\n') == ({"x": ["C:\\new\\"], "y": ["b"]}, [])


def test_tab_separated_text_without_quoting(tmp_path):
    classes, notes = read(tmp_path, 'text\tlabel\n"oh" he said\tx\n"never closed\ty\n')
    assert classes == {"x": ['"oh" he said'], "y": ['"never closed']}
    assert notes[-1] == "is read with quotes as ordinary characters"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('text,label\na,x\n"b\n\n,x\nc,y\n', "data:3: not CSV (a quote that this row opens is never closed)"),
        ('text,label\n"a\n\nb",x\nc,\n', "data:5: 'label' is empty; expected a class name"),
        ('sep=;\ntext;label\n"a\nb";x\nc;d;e', "data:5: the row has 3 values, but the header has 2; expected quotes "
         "around values that contain semicolons"),
        ("intent;utterance\na;b\n", "data:1: there is no column 'text'; did you mean 'intent'?"),
    ],
)  # fmt: skip
def test_lines_are_those_where_rows_start(content, sentence, tmp_path):
    assert refusal(tmp_path, content) == sentence


ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": 1}, {"text": None, "label": "x"}]


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_an_array_of_objects(indent, tmp_path):
    classes, notes = read(tmp_path, json.dumps(ROWS, indent=indent), JSONLines)
    assert classes == {"x": ["a"], "1": ["b"]}
    assert notes == ["has 1 row without a text, left out"]
    lines = "\n".join(map(json.dumps, ROWS))
    assert read(tmp_path, lines, JSONLines) == (classes, notes)
    assert read(tmp_path, "\n".join(json.dumps(row, indent=indent) for row in ROWS), JSONLines) == (classes, notes)


@pytest.mark.parametrize("indent", [None, 2])
def test_an_object_of_splits(indent, tmp_path):
    splits = {name: [{"text": f"{name} text", "label": name}] for name in ("train", "dev", "test")}
    classes, notes = read(tmp_path, json.dumps(splits, indent=indent), JSONLines)
    assert classes == {s: {n: [f"{n} text"]} for s, n in zip(SPLITS, splits, strict=True)} and notes == []
    del splits["dev"]
    classes, notes = read(tmp_path, json.dumps(splits, indent=indent), JSONLines)
    assert classes == {"train": ["train text"], "test": ["test text"]}
    assert notes == ["has the splits 'train' and 'test', which are joined; its classes are split anew"]
    assert read(tmp_path, json.dumps({"data": ROWS[:1]}, indent=indent), JSONLines) == ({"x": ["a"]}, [])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[\n{"text": "a", "label": "x"},\n\n{"txt": "a"}]', "data:4: there is no field 'text'; did you mean 'txt'?"),
        ('[\n{"text": "a", "label": "x"},\n[3]]', "data:3: an array; expected an object"),
        ('[{"text": "a", "label": "x"},\n\n{"text": "a" "label": "x"}]', "data:3: not JSON (Expecting ',' delimiter)"),
        ('[{"text": "a", "label": "x"}\n', "data:2: not JSON; expected ','"),
        ('{"train": [\n{"text": "a", "label": ["x"]}]}', "data:2: 'label' is list; expected a string"),
        ('{\n"version": 2,\n"data": []}', "data:2: 'version' is a number; expected an array of objects for each split"),
        ("[]", "data contains no examples; expected rows with a text and a label"),
    ],
)
def test_lines_in_a_json_document(content, sentence, tmp_path):
    assert refusal(tmp_path, content, JSONLines) == sentence


def test_a_search_prints_how_its_data_were_read(tmp_path):
    """Once, before anything else is known about the search."""
    from pathlib import Path

    from rich.console import Console

    from nas_meta.journal.leaderboard import Leaderboard
    from nas_meta.journal.status import Status
    from nas_meta.outputs.report.live import LiveProgress

    status = Status("searching", Leaderboard([]), 2, 0.0, {}, Path(tmp_path), data_report=("a.csv is read as UTF-16",))
    console = Console(width=80)
    with console.capture() as printed, LiveProgress(console) as progress:
        progress(status)
        progress(status)
    assert printed.get().splitlines() == ["data         a.csv is read as UTF-16", "searching"]
    assert "data_report" not in status.as_dict()  # it is in the journal


@tried(150, 4000)
def test_what_a_csv_writer_writes_is_read_back(cases, tmp_path):
    import csv
    import io

    text = st.text(st.sampled_from("ab \\\",;\t|\n\r'é"), min_size=1, max_size=8).filter(str.strip)

    @many(cases)
    @given(st.lists(text, min_size=1, max_size=6), st.sampled_from(",;\t|"), st.sampled_from(["utf-8", "utf-16"]))
    def property(texts, delimiter, encoding):
        written = io.StringIO()
        writer = csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("text", "label"), *((t, "x") for t in texts)])
        assert read(tmp_path, written.getvalue().encode(encoding))[0] == {"x": texts}

    property()
