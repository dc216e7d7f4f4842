"""``nas-meta classify``: from a support file to predictions, and one sentence for every bad input."""

import csv
import json

import pytest
from typer.testing import CliRunner

from nas_meta import search
from nas_meta.cli.main import app
from nas_meta.outputs.export.folder import export


@pytest.fixture(scope="module")
def support(tmp_path_factory):
    file = tmp_path_factory.mktemp("support") / "support.csv"
    file.write_text("text,label\nredfox redcat,a/b\nredfox redfox,a/b\ngoldowl goldbee,c\n")
    return file


@pytest.fixture
def run(small_config, tmp_path):
    small_config |= {"strategy": {"name": "random"}, "budget": {"trials": 1}}
    return search(small_config, tmp_path / "run", inline=True)


def classify(*arguments):
    return CliRunner().invoke(app, ["classify", *map(str, arguments)])


def check_evaluation(saved, model, folder):
    """A saved classifier is tested on a labelled file, with one row per class."""
    file = folder / "labelled.csv"
    file.write_text("text,label\nredfox redcat,a/b\nredcat redfox,a/b\ngoldowl goldbee,c\nredfox redfox,c\n")
    row = json.loads(CliRunner().invoke(app, ["evaluate", str(saved), "--input", str(file), "--json"]).stdout)
    assert row["accuracy"] == 0.75 and row["examples"] == 4
    assert row["accuracy_interval"] == pytest.approx([0.3006, 0.9544], abs=1e-4)  # Wilson (1927) for 3 of 4
    assert [(c["label"], c["examples"], c["right"], c["predicted"]) for c in row["classes"]] == [
        ("a/b", 2, 2, 3), ("c", 2, 1, 1)
    ]  # fmt: skip
    printed = CliRunner().invoke(app, ["evaluate", str(saved), "--input", str(file)]).stdout
    assert printed.startswith("75.0 % of 4 examples are classified correctly (95% interval over examples 30.1 to 95.4")
    file.write_text("text,label\nredfox,d\n")
    for arguments, sentence in (
        ((saved, "--input", file), "labelled.csv: the label 'd' is not a class of the classifier"),
        (
            (model, "--input", file),
            "is not a fitted classifier; expected a folder that 'nas-meta classify --save' wrote",
        ),
        ((model, "--input", file, "--full-way"), "expected no --config"),
        ((model, "--input", file, "--trial", 1), "expected no --config, --trial"),
        ((saved,), "--config is missing"),
        ((file,), "is not a folder; expected an exported model, a run directory or a saved classifier"),
        ((model, "--trial", 1), "is not a run, so it has no trial 1; expected a run directory"),
    ):
        assert sentence in str(CliRunner().invoke(app, ["evaluate", *map(str, arguments)]).exception), arguments


def test_texts_and_files_are_classified_and_bad_input_is_refused(run, support, tmp_path):
    model = export(run, tmp_path / "model")
    printed = classify(model, "--support", support, "redfox redcat", "goldowl goldbee", "--json")
    rows = json.loads(printed.stdout)
    assert [row["label"] for row in rows] == ["a/b", "c"] and all(0.5 < row["probability"] <= 1 for row in rows)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"redfox redcat {i}"}) for i in range(1200)))
    done = classify(run.directory, "--trial", 1, "--support", support, "--input", texts, "--to", tmp_path / "out.csv",
                    "--save", tmp_path / "saved")  # fmt: skip
    assert done.exit_code == 0 and "1,024 of 1,200 texts" in done.stderr
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == [f"redfox redcat {i}" for i in range(1200)]
    again = classify(tmp_path / "saved", "redfox redcat")
    assert again.exit_code == 0 and again.stdout.startswith("a/b\t")
    # Like a support file, it may come from a spreadsheet: semicolons, and a byte that is not UTF-8.
    (tmp_path / "sheet.csv").write_bytes("text;id\nredfox redcat;1\ngoldowl é goldbee;2\n".encode("cp1252"))
    sheet = json.loads(classify(tmp_path / "saved", "--input", tmp_path / "sheet.csv", "--json").stdout)
    assert [(row["text"], row["label"]) for row in sheet] == [("redfox redcat", "a/b"), ("goldowl é goldbee", "c")]
    check_evaluation(tmp_path / "saved", model, tmp_path)
    one_class, listed = tmp_path / "one.csv", tmp_path / "listed.xml"
    one_class.write_text("text,label\nalpha,a\nbravo,a\n")
    listed.write_text("alpha")
    texts.write_text('{"text": "alpha"}\n{"txt": "bravo"}\n')
    for arguments, sentence in (
        ((model, "--support", one_class, "alpha"), "one.csv: all examples have the label 'a'"),
        ((model, "alpha"), "--support is missing"),
        ((model, "--support", support), "expected either TEXT arguments or --input FILE"),
        ((model, "--support", support, "--input", texts), "texts.jsonl:2: there is no text in the field 'text'"),
        (
            (model, "--support", support, "--input", listed),
            "expected a file that ends with .jsonl, .csv, .json, .tsv or .txt",
        ),
        ((model, "--support", support, "--input", tmp_path / "none.csv"), "none.csv cannot be read"),
        ((tmp_path, "--support", support, "alpha"), "is not an exported model"),
        ((run.directory, "--trial", 9, "--support", support, "alpha"), "has no trial 9"),
    ):
        assert sentence in str(classify(*arguments).exception), arguments
