"""A run is resumed with the data and the models that it began with, and a rerun says what has changed since."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from nas_meta import load_run, resume, search
from nas_meta.cli.main import app
from nas_meta.config.problem import Problem
from nas_meta.config.resolved import resolve
from nas_meta.controller.changes import checked_fingerprints
from nas_meta.errors import ConfigError, RunError
from nas_meta.journal.database import Journal
from nas_meta.outputs.changes import compared_with_journal, differences
from nas_meta.outputs.export.folder import export
from nas_meta.outputs.rerun import rerun
from nas_meta.tasks.pool import tokenise
from nas_meta.tasks.sources.images import ImageFolder

OLD_RUNS = Path(__file__).parents[1] / "compat" / "runs"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, labelled_texts):
    """Folder with a run of one trial, its data and its model."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(tiny_model, folder / "model")
    shutil.copy(labelled_texts, folder / "intents.jsonl")
    config = {
        "space": {"name": "bert-subnet", "model": str(folder / "model"), "heads": [1.0, 0.5]},
        "tasks": {"source": "jsonl", "path": str(folder / "intents.jsonl"), "ways": 3, "min_examples": 5},
        "learner": {"name": "protonet", "head": "none", "steps": 2, "lr": 1e-3},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 5, "test_episodes": 5, "test_best": 1, "check_models": False, "compare": False},
        "budget": {"trials": 1},
        "resources": {"cpus_per_trial": 1},
        "latency": {"seconds": 0.01},
    }
    search(config, folder / "run", inline=True)
    return folder


@pytest.fixture
def inputs(finished, tmp_path):
    """Folder with data and model of the run, which are restored after the test."""
    kept = tmp_path / "kept"
    shutil.copytree(finished, kept, ignore=shutil.ignore_patterns("run"))
    yield finished
    shutil.rmtree(finished / "model", ignore_errors=True)
    shutil.copytree(kept / "model", finished / "model")
    shutil.copy(kept / "intents.jsonl", finished / "intents.jsonl")


@pytest.fixture
def run(inputs, tmp_path):
    """The run, moved to another folder."""
    return Path(shutil.copytree(inputs / "run", tmp_path / "moved"))


def rows(inputs):
    return [json.loads(line) for line in (inputs / "intents.jsonl").read_text().splitlines()]


def rewrite(inputs, new):
    (inputs / "intents.jsonl").write_text("\n".join(map(json.dumps, new)))


def refused(run, match):
    with pytest.raises(ConfigError, match=match) as refusal:
        resume(run, ["budget.trials=2"], inline=True)
    assert refusal.value.exit_code == 2
    assert load_run(run).count == 1


@pytest.mark.slow
def test_a_run_is_resumed_elsewhere_with_files_that_were_written_again(inputs, run, caplog):
    rewrite(inputs, [{"label": row["label"], "text": row["text"], "more": 1} for row in rows(inputs)])
    shutil.copy(inputs / "model" / "model.safetensors", inputs / "copy")
    os.replace(inputs / "copy", inputs / "model" / "model.safetensors")
    (inputs / "model" / "README.md").write_text("new")
    assert resume(run, ["budget.trials=2"], inline=True).count == 2
    assert "resumes although" not in caplog.text


def test_a_changed_text_is_refused_until_it_is_restored(inputs, run):
    before = rows(inputs)
    rewrite(inputs, [*before[:-1], before[-1] | {"text": "something else"}])
    refused(run, rf"tasks.path '{inputs}/intents.jsonl': the examples of class 'class11' are others.*restore them")
    rewrite(inputs, before)
    assert resume(run, ["budget.trials=2"], inline=True).count == 2


def test_a_new_class_is_named_with_the_numbers(inputs, run):
    rewrite(inputs, [*rows(inputs), *({"text": f"new {i}", "label": "x"} for i in range(6))])
    refused(run, r"meta-train had \d+ examples of 6 classes .*; class 'x' is new")
    config = load_run(run).config.given
    with pytest.raises(ConfigError, match="class 'x' is new"):  # the command search --resume
        search(config | {"budget": {"trials": 2}}, run, inline=True, resume=True)


def test_changed_weights_are_refused_before_they_are_loaded(inputs, run):
    (inputs / "model" / "model.safetensors").write_bytes(b"another model")
    refused(run, rf"space.model '{inputs}/model': model.safetensors differs from the file that the run began with")
    shutil.rmtree(inputs / "model")
    refused(run, rf"space.model '{inputs}/model' is gone")


def test_a_changed_tokenizer_is_refused_and_an_export_warns(inputs, run, tmp_path, caplog):
    file = inputs / "model" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"note": 1}))
    refused(run, "tokenizer_config.json differs")
    export(load_run(run), tmp_path / "exported")
    assert "tokenizer_config.json differs" in caplog.text


def test_a_rerun_says_that_the_data_have_changed(inputs, run):
    # Texts that say nothing about their classes: the accuracy falls to that of guessing.
    rewrite(inputs, [row | {"text": f"{i} {i * 7919 % 1000}"} for i, row in enumerate(rows(inputs))])
    done = CliRunner().invoke(app, ["trial", str(run), "1", "--rerun"])
    assert done.exit_code == 0 and "warning: tasks.path" in done.stderr
    for word in ("the journal has", "are others, or in another order"):
        assert word in " ".join(done.stdout.split())


def test_a_rerun_with_another_number_has_a_reason_even_where_nothing_has_changed(run):
    journal = Journal.append(run)
    trial = journal.trials()[0]
    journal.write(replace(trial, metrics={**trial.metrics, "accuracy": 0.123}))
    journal.close()
    opened = load_run(run)
    stated = compared_with_journal(opened, opened.trial(1), 0.5, differences(opened, opened.trial(1)))
    assert stated.startswith("the journal has 0.123; data, models, plugin files, versions and processor are the same")
    failed = replace(opened.trial(1), status="failed", metrics={})
    assert compared_with_journal(opened, failed, 0.5, []).endswith("no accuracy, because the trial is failed")


def with_other_environment(run, **changes):
    journal = Journal.append(run)
    environments = journal.get("environments")
    for key, values in changes.items():
        environments[-1][key] |= values
    journal.set("environments", environments)
    journal.close()


def test_other_versions_and_processors_are_named_and_not_refused(run, caplog):
    with_other_environment(run, versions={"torch": "1.0", "nni": "1.0"}, processor={"CPU": "Z80"})
    changes = []
    opened = load_run(run)
    again = rerun(opened, opened.trial(1), changed=changes.append)
    assert again["accuracy"] == opened.trial(1).metrics["accuracy"]
    assert [change.partition(" and is ")[0] for change in changes] == ["torch was 1.0", "the CPU was Z80"]
    resumed = resume(run, ["budget.trials=2"], inline=True)
    assert "resumes although torch was 1.0 and is" in caplog.text and "Z80" not in caplog.text
    caplog.clear()
    first, second = resumed.trials
    assert resumed.environment_of(first).versions["torch"] == "1.0" != resumed.environment_of(second).versions["torch"]
    resume(run, inline=True)
    assert "resumes although" not in caplog.text
    assert len(Journal.open(run).get("environments")) == 2


@pytest.mark.slow
def test_a_corrected_plugin_file_is_a_warning(small_config, tmp_path, caplog):
    plugin = tmp_path / "mine.py"
    plugin.write_text("from nas_meta.learners.protonet import ProtoNet\nclass Mine(ProtoNet):\n    pass\n")
    small_config |= {"budget": {"trials": 1}, "learner": {"name": f"{plugin}:Mine", "steps": 1}}
    search(small_config, tmp_path / "run", inline=True)
    plugin.write_text(plugin.read_text() + "# corrected\n")
    run = resume(tmp_path / "run", ["budget.trials=2"], inline=True, allow_plugins=True)
    assert run.count == 2
    for command in ("best", "trials", "status"):  # looking at a run needs none of its code
        shown = CliRunner().invoke(app, [command, str(tmp_path / "run")])
        assert shown.exit_code == 0, shown.output
    assert f"the plugin file {plugin} has changed" in caplog.text


@pytest.mark.slow
def test_another_corpus_is_refused_until_the_model_is_adapted(small_config, corpus, tmp_path):
    small_config |= {"budget": {"trials": 1}}
    small_config["pretraining"] = {"of": "model", "corpus": str(corpus), "steps": 2, "batch": 4, "block": 16}
    search(small_config, tmp_path / "run", inline=True)
    corpus.write_text(corpus.read_text() + "\none more\n")
    shutil.copytree(tmp_path / "run", tmp_path / "unadapted", ignore=shutil.ignore_patterns("adapted"))
    with pytest.raises(ConfigError, match=rf"pretraining.corpus '{corpus}' has other texts"):
        resume(tmp_path / "unadapted", ["budget.trials=2"], inline=True)
    assert resume(tmp_path / "run", ["budget.trials=2"], inline=True).count == 2


def test_a_run_of_an_older_version_gets_its_fingerprints_when_it_is_resumed(tmp_path, monkeypatch):
    shutil.copytree(OLD_RUNS, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    assert load_run("finished").fingerprint is None
    trials = load_run("finished").count
    run = resume("finished", [f"budget.trials={trials + 1}"], inline=True)
    assert run.fingerprint.models["space.model"] and run.environment_of(run.trials[0]) is None
    file = Path("intents.jsonl")
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    with pytest.raises(ConfigError, match="meta-"):
        resume("finished", inline=True)


@pytest.mark.parametrize("key", ["fingerprint", "environments"])
def test_damaged_fingerprints_are_a_sentence(run, key):
    journal = Journal.append(run)
    journal.set(key, {"data": 1, "models": []})
    journal.close()
    with pytest.raises(RunError, match=f"'{key}' is not of the type"):
        resume(run, inline=True)


def images(folder, brightness=0, more=0):
    """Write six classes of two images and return their tasks."""
    for label in range(6):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
        for number in range(2 + more):
            colour = (40 * label, 40 * number, brightness)
            Image.new("RGB", (4, 4), colour).save(folder / f"class{label}" / f"{number}.png")
    source = ImageFolder(ImageFolder.Options(path=folder, size=4))
    return tokenise(source.load(), lambda texts: ([], []))


def test_images_that_another_decoder_reads_differently_are_a_warning(tmp_path, caplog):
    folder = tmp_path / "images"
    config = resolve({"space": {"name": "vit"}, "tasks": {"source": "image-folder", "path": str(folder)}})

    def check(tasks, resumed=True):
        return checked_fingerprints(config, tmp_path, Problem(None, tasks, None), None, 1, resumed)

    Journal.create(tmp_path, **check(images(folder), resumed=False)).close()
    with pytest.raises(ConfigError, match=rf"tasks.path '{folder}': the examples of class 'class.' and of 5 more"):
        check(images(folder, brightness=1))
    with_other_environment(tmp_path, versions={"pillow": "1.0"})
    check(images(folder, brightness=1))
    assert "pillow was 1.0 and is" in caplog.text and "may decode the same images differently" in caplog.text
    with pytest.raises(ConfigError, match=r"now has \d+ of 3; .*; pillow was 1.0"):
        check(images(folder, more=1))
