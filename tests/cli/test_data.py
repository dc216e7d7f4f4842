"""``nas-meta init`` and ``nas-meta data``: what is found in a file, and the config that is written for it."""

import json
from pathlib import Path

import pytest
import yaml
from command_line import nas_meta
from words import WORDS

from nas_meta import search

CONFIGS = Path(__file__).parents[2] / "configs"


def rows(classes, size, prefix="class"):
    """Different texts of a number of classes, as lists of text and label."""
    return [
        [f"{WORDS[c]} {WORDS[(c + i) % len(WORDS)]} number {i}", f"{prefix}{c}"]
        for c in range(classes)
        for i in range(size)
    ]


def write_csv(file, table, header=("text", "label"), delimiter=","):
    lines = [delimiter.join(header), *(delimiter.join(map(str, row)) for row in table)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def tasks_of(config):
    return yaml.safe_load(config.read_text())["tasks"]


def test_the_config_runs_on_its_file_as_it_is(tmp_path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    write_csv(
        tmp_path / "intents.csv", [[i, *r] for i, r in enumerate(rows(24, 8))], ("id", "Utterance", "intent"), ";"
    )
    said = nas_meta("init", "intents.csv").stdout
    assert "24, with 192 different texts" in said and "semicolons" in said and "nas-meta search intents.yaml" in said
    assert "meta-train: 12 classes, 96 texts" in said and "'Utterance' has the texts and 'intent' the classes" in said
    tasks = tasks_of(tmp_path / "intents.yaml")
    assert (tasks["ways"], tasks["shots"], tasks["queries"], tasks["min_examples"]) == (5, 1, 5, 6)
    assert all(
        "#" in line for line in (tmp_path / "intents.yaml").read_text().splitlines() if line.startswith("  path")
    )
    document = yaml.safe_load((tmp_path / "intents.yaml").read_text())
    document |= {"space": {"name": "bert-subnet", "model": str(tiny_model)}, "budget": {"trials": 1}}
    document |= {"learner": {"name": "protonet", "steps": 1, "head": "none"}, "strategy": {"name": "random"}}
    document |= {"evaluation": {"episodes": 4, "test_episodes": 4, "compare": False}, "latency": {"seconds": 0.02}}
    assert search(document, "run", inline=True).trials[0].status == "completed"


def test_a_config_is_never_written_over(tmp_path):
    write_csv(tmp_path / "a.csv", rows(12, 6))
    (tmp_path / "a.yaml").write_text("mine")
    assert "a.yaml exists already" in nas_meta("init", "a.csv", cwd=tmp_path, check=2).stderr
    assert (tmp_path / "a.yaml").read_text() == "mine"
    nas_meta("init", "a.csv", "--to", "new/b.yaml", cwd=tmp_path)  # in a folder that is not there yet
    assert tasks_of(tmp_path / "new" / "b.yaml")["path"] == "../a.csv"
    nas_meta("init", "a.csv", "--to", "b.yaml", cwd=tmp_path)
    assert tasks_of(tmp_path / "b.yaml")["path"] == "a.csv"


@pytest.mark.parametrize(
    ("classes", "size", "ways", "queries", "even"),
    [(20, 6, 5, 5, False), (15, 6, 5, 5, True), (24, 3, 5, 2, False), (9, 9, 3, 5, True), (6, 2, 2, 1, True)],
)
def test_episodes_are_as_large_as_the_data_allow(tmp_path, classes, size, ways, queries, even):
    write_csv(tmp_path / "a.csv", rows(classes, size))
    nas_meta("init", "a.csv", cwd=tmp_path)
    tasks = tasks_of(tmp_path / "a.yaml")
    assert (tasks["ways"], tasks["queries"], "fractions" in tasks) == (ways, queries, even)
    facts = json.loads(nas_meta("data", "a.yaml", "--json", cwd=tmp_path).stdout)
    assert facts["classes"] == classes and facts["shape"] == {"ways": ways, "shots": 1, "queries": queries}
    assert min(counts["classes"] for counts in facts["splits"].values()) >= ways


def test_json_lines_and_long_texts_are_recognised(tmp_path):
    table = [{"body": f"{text} " + "word " * 60, "topic": label} for text, label in rows(20, 6)]
    (tmp_path / "a.json").write_text(json.dumps(table))
    nas_meta("init", "a.json", cwd=tmp_path)
    tasks = tasks_of(tmp_path / "a.yaml")
    assert (tasks["source"], tasks["text"], tasks["label"], tasks["max_tokens"]) == ("jsonl", "body", "topic", 128)


def test_columns_without_usual_names_are_guessed_by_their_values(tmp_path):
    write_csv(tmp_path / "a.tsv", [[i, *row] for i, row in enumerate(rows(12, 6))], ("nr", "wortlaut", "fach"), "\t")
    nas_meta("init", "a.tsv", cwd=tmp_path)
    assert (tasks_of(tmp_path / "a.yaml")["text"], tasks_of(tmp_path / "a.yaml")["label"]) == ("wortlaut", "fach")
    nas_meta("init", "a.tsv", "--label", "nr", "--to", "b.yaml", cwd=tmp_path, check=2)
    assert not (tmp_path / "b.yaml").exists()


def test_files_of_an_ordinary_classifier_are_joined(tmp_path):
    table = rows(15, 9)
    for name, start in (("train", 0), ("valid", 1), ("test", 2)):
        write_csv(tmp_path / f"{name}.csv", table[start::3])
    nas_meta("init", "train.csv", "valid.csv", "test.csv", "--to", "a.yaml", cwd=tmp_path)
    tasks = tasks_of(tmp_path / "a.yaml")
    assert tasks["join_splits"] is True and tasks["test"] == "test.csv" and tasks["ways"] == 5
    assert "15, with 135 different texts" in nas_meta("data", "a.yaml", cwd=tmp_path).stdout


def test_files_with_classes_of_their_own_stay_apart(tmp_path):
    for name in ("train", "valid", "test"):
        write_csv(tmp_path / f"{name}.csv", [[f"{name} {text}", label] for text, label in rows(4, 6, f"{name}-")])
    nas_meta("init", "train.csv", "valid.csv", "test.csv", "--to", "a.yaml", cwd=tmp_path)
    tasks = tasks_of(tmp_path / "a.yaml")
    assert "join_splits" not in tasks and "fractions" not in tasks and tasks["ways"] == 4


def test_few_classes_need_groups(tmp_path):
    table = [[f"{p} {text}", label, f"product {p}"] for p in range(6) for text, label in rows(2, 6)]
    write_csv(tmp_path / "a.csv", table, ("text", "label", "product"))
    refused = nas_meta("init", "a.csv", cwd=tmp_path, check=2).stderr
    assert "has 2 classes with at least two different texts; expected 6 or more" in refused and "--group" in refused
    assert not (tmp_path / "a.yaml").exists()
    said = nas_meta("init", "a.csv", "--group", "product", cwd=tmp_path).stdout
    assert "12 in 6 groups" in said and tasks_of(tmp_path / "a.yaml")["ways"] == 2
    assert "6 groups" in nas_meta("data", "a.yaml", cwd=tmp_path).stdout


def test_one_is_not_several(tmp_path):
    found = [[text, label, f"shop{i // 12}"] for i, (text, label) in enumerate(rows(6, 6))]
    write_csv(tmp_path / "a.csv", found, ("text", "label", "shop"))
    nas_meta("init", "a.csv", "--group", "shop", cwd=tmp_path)
    said = nas_meta("data", "a.yaml", cwd=tmp_path).stdout
    assert "split     meta-train: 1 group with 2 classes, 12 texts" in said and "6 in 3 groups" in said


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["nowhere.csv"], "nowhere.csv cannot be read"),
        (["a.csv", "a.csv"], "2 files are given"),
        (["empty.csv"], "empty.csv contains no examples"),
        (["ids.csv"], "ids.csv has the columns 'id'; expected one with texts and one with classes"),
        (["a.csv", "--text", "txt"], "there is no column 'txt'; did you mean 'text'?"),
        (["a.csv", "--to", "ids.csv/config.yaml"], "ids.csv/config.yaml cannot be written: "),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, typed, words):
    write_csv(tmp_path / "a.csv", rows(12, 6))
    (tmp_path / "empty.csv").touch()
    write_csv(tmp_path / "ids.csv", [["a"], ["b"]], ("id",))
    done = nas_meta("init", *typed, cwd=tmp_path, check=2)
    assert words in done.stderr and done.stderr.count("\n") == 1


def test_data_reports_what_is_left_out_and_what_does_not_fit(tmp_path):
    write_csv(tmp_path / "a.csv", [*rows(12, 6), ["twice", "class0"], ["twice", "class0"], ["alone", "other"]])
    config = tmp_path / "a.yaml"
    config.write_text("tasks: {source: csv, path: a.csv, ways: 3, queries: 4, min_examples: 5}")
    said = nas_meta("data", config, cwd=tmp_path).stdout
    assert "1 repeated or empty text left out" in said and "1 class with fewer than 5 distinct texts" in said
    assert "smallest  'class1' with 6 texts" in said and "largest   'class0' with 7 texts" in said
    assert "tasks.ways is 4" in nas_meta("data", config, "--set", "tasks.ways=4", cwd=tmp_path, check=2).stderr


@pytest.mark.parametrize(("config", "lengths"), [("vit", False), ("tower", True)])
def test_data_reports_images_and_images_with_texts(config, lengths):
    facts = json.loads(nas_meta("data", CONFIGS / f"{config}.yaml", "--json").stdout)
    assert facts["classes"] == 10 and (facts["words"] is not None) is lengths
    assert sum(split["examples"] for split in facts["splits"].values()) == facts["examples"] == 1797
