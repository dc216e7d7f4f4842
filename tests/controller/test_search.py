"""A whole search as a user runs it: the command line, real Ray, real SQLite, real TensorBoard files."""

import json
import shutil
import sqlite3

import numpy as np
import pytest
import torch
import yaml
from command_line import nas_meta

from nas_meta import load_run, search
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.evaluation.metrics import METRICS
from nas_meta.evaluation.trial import result_of
from nas_meta.journal.database import Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.run import rank


@pytest.fixture(scope="module")
def finished(tiny_model, labelled_texts, tmp_path_factory):
    """One search on Ray through the command line; returns its config file, directory and output."""
    folder = tmp_path_factory.mktemp("search")
    config = folder / "small.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "space": {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0, 0.5]},
                "tasks": {
                    "source": "jsonl",
                    "path": str(labelled_texts),
                    "ways": 3,
                    "shots": 1,
                    "queries": 3,
                },
                "learner": {"name": "protonet", "head": "none", "steps": 4, "lr": 1e-3},
                "evaluation": {
                    "episodes": 20,
                    "test_episodes": 20,
                    "interim_every": 2,
                    "interim_episodes": 5,
                    "keep": 2,
                    "compare": False,  # the tests of comparisons train them
                },
                "budget": {"trials": 6},
                "latency": {"seconds": 0.02},
                "seed": 3,
            }
        )
    )
    done = nas_meta("search", config, "--run-dir", folder / "run", "--set", "strategy.name=random")
    return config, folder / "run", done.stdout


@pytest.mark.slow
def test_the_journal_tells_every_trial(finished):
    _, run, output = finished
    trials = json.loads(nas_meta("trials", run, "--json").stdout)
    assert [t["id"] for t in trials] == [1, 2, 3, 4, 5, 6]
    assert {t["status"] for t in trials} == {"completed"}
    assert len({t["architecture_id"] for t in trials}) == 6
    for t in trials:
        assert set(t["metrics"]) == {name for name, metric in METRICS.items() if metric.always}
        assert 0 <= t["metrics"]["accuracy"] <= 1 and t["finished"] > t["started"] and t["seed"] == 3
    assert "TF-IDF" in output and "the untouched model" in output


def test_best_is_the_best_and_was_meta_tested(finished):
    _, run, _ = finished
    best = json.loads(nas_meta("best", run, "--json").stdout)
    trials = json.loads(nas_meta("trials", run, "--json", "--sort", "accuracy").stdout)
    assert (
        best["metrics"]["accuracy"] == max(t["metrics"]["accuracy"] for t in trials) == trials[0]["metrics"]["accuracy"]
    )
    assert 0 <= best["test_accuracy"] <= 1 and best["test_accuracy_ci95"] > 0


def test_weights_are_kept_only_for_the_best(finished):
    _, run, _ = finished
    kept = {int(p.stem) for p in (run / "weights").iterdir()}
    loaded = load_run(run)
    assert kept == {t.id for t in rank(loaded.trials, loaded.objectives)[:2]}


def test_tensorboard_holds_curves_hparams_and_the_picture(finished):
    from google.protobuf.json_format import MessageToDict
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2
    from tensorboard.plugins.hparams import plugin_data_pb2

    _, run, _ = finished
    folders = sorted(p for p in (run / "tensorboard").iterdir() if p.name.startswith("trial-"))
    assert len(folders) == 6
    for folder, trial in zip(folders, load_run(run).trials, strict=True):
        events = EventAccumulator(str(folder)).Reload()
        assert [e.step for e in events.Scalars("meta-train/loss")] == [1, 2, 3, 4]
        accuracy = events.Scalars("meta-validation/accuracy")
        assert [e.step for e in accuracy] == [2, 4]
        assert accuracy[-1].value == pytest.approx(trial.metrics["accuracy"])
        contents = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(contents).session_start_info
        assert set(start.hparams) == set(trial.architecture)
        assert "_hparams_/session_end_info" in events.summary_metadata
    events = EventAccumulator(str(run / "tensorboard" / "search")).Reload()
    assert len(events.Scalars("search/best")) == 6
    assert events.Images("search/front")[-1].width > 300
    contents = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(contents).experiment
    assert [m.display_name for m in experiment.metric_infos][:3] == ["accuracy", "meta-test accuracy", "flops"]
    assert 0 < events.Scalars("search/hypervolume")[-1].value < 1
    written = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    layout = str(MessageToDict(layout_pb2.Layout.FromString(written)))
    assert "search/hypervolume" in layout and "meta-test/accuracy" in layout
    tested = load_run(run).report
    assert tested["trials"] and tested["references"]
    for number, row in tested["trials"].items():
        (folder,) = (run / "tensorboard").glob(f"trial-{int(number):04d}-*")
        accuracy = EventAccumulator(str(folder)).Reload().Scalars("meta-test/accuracy")[-1].value
        assert accuracy == pytest.approx(row["test_accuracy"])
    assert len(list((run / "tensorboard").glob("reference-*"))) == len(tested["references"])
    assert {h.name for h in experiment.hparam_infos} == set(
        load_run(run).config.plugin("space")(load_run(run).config.options["space"]).table
    )


def test_the_exported_model_gives_the_same_accuracy_and_embeddings(finished, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    from nas_meta.config.problem import episode_shape
    from nas_meta.space.architecture import Architecture

    config, directory, _ = finished
    nas_meta("export", directory, "--to", tmp_path / "model")
    run = load_run(directory)
    space = run.config.plugin("space")(run.config.options["space"])
    evaluation = make_evaluation(run.config, space, None, episode_shape(run.config), 1)
    inside = evaluation.restored(Architecture(run.best.architecture), run.weights_of(run.best)).model.eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")(
        ["redfox bluecat", "greenowl"], return_tensors="pt", padding=True
    )
    tokens = {n: tokens[n] for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        exported = AutoModel.from_pretrained(tmp_path / "model", trust_remote_code=True).eval()
        outside = exported(**tokens).last_hidden_state
        torch.testing.assert_close(outside, inside(**tokens).last_hidden_state, atol=1e-5, rtol=1e-5)
    for what in ((tmp_path / "model", "--config", config), (tmp_path / "model",), (directory,)):
        row = json.loads(nas_meta("evaluate", *what, "--episodes", 20, "--json").stdout)
        assert row["accuracy"] == pytest.approx(run.test_of(run.best)["test_accuracy"]), what
    assert row["model"] == str(directory) and row["trial"] == run.best.id
    refused = nas_meta("evaluate", directory, "--set", "learner.name=matching", check=2).stderr
    assert refused.startswith(f"nas-meta: trial {run.best.id} of {directory}: 'learner."), refused
    card = (tmp_path / "model" / "README.md").read_text()
    params = sum(p.numel() for p in exported.parameters())
    assert row["params"] == run.best.metrics["params"] == params
    assert "meta-test accuracy" in card and f"| parameters of the architecture | {params:,} |" in card
    refused = nas_meta("export", directory, "--to", tmp_path / "model", check=1)
    assert "is not empty; expected a new or empty folder" in refused.stderr


def test_a_directory_with_a_run_is_refused(finished):
    config, run, _ = finished
    assert "already holds a run" in nas_meta("search", config, "--run-dir", run, check=1).stderr


@pytest.mark.slow
def test_inline_and_ray_give_the_same_accuracies(finished, small_config, tmp_path):
    """A trial is a function of its architecture, seed and fidelity, wherever it runs."""
    _, directory, _ = finished
    document = load_run(directory).config.document | {"run_dir": None}
    run = search(document, tmp_path / "inline", inline=True)
    there = {t.architecture_id: t.metrics["accuracy"] for t in load_run(directory).trials}
    here = {t.architecture_id: t.metrics["accuracy"] for t in run.trials}
    shared = set(there) & set(here)
    assert len(shared) >= 4
    # Threads may differ, and with them the order of float additions.
    assert all(there[i] == pytest.approx(here[i], abs=0.06) for i in shared)


@pytest.mark.slow
def test_a_failing_architecture_fails_its_trial_and_the_search_goes_on(small_config, tmp_path):
    plugin = tmp_path / "fragile.py"
    plugin.write_text(
        "import torch\n"
        "from transformers import BertConfig, BertModel\n"
        "from nas_meta import SearchSpace\n"
        "class Fragile(SearchSpace):\n"
        f"    tokenizer = {small_config['space']['model']!r}\n"
        "    def choices(self):\n"
        "        return {'width': [8, 16, 32, 64], 'bad': [False, True]}\n"
        "    def build(self, a):\n"
        "        if a['bad']:\n"
        "            raise ValueError('this one cannot be built')\n"
        "        return BertModel(BertConfig(vocab_size=40, hidden_size=a['width'], num_hidden_layers=1,\n"
        "                                    num_attention_heads=2, intermediate_size=16))\n"
    )
    small_config["space"] = {"name": f"{plugin}:Fragile"}
    small_config["strategy"] = {"name": "grid"}
    small_config["budget"] = {"trials": 20}
    run = search(small_config, tmp_path / "run")
    assert sorted(t.status for t in run.trials) == ["completed"] * 4 + ["failed"] * 4
    assert {t.error for t in run.trials if t.error} == {"ValueError: this one cannot be built"}


def test_many_trials_are_listed_by_their_last_or_best(tmp_path, monkeypatch):
    """Of a run with thousands of trials only what is shown is read."""
    monkeypatch.setenv("COLUMNS", "80")
    journal = Journal.create(tmp_path, config={"objectives": [{"metric": "accuracy", "direction": "maximize"}]})
    for i in range(1, 151):
        metrics = {"accuracy": i % 100 / 100, "accuracy_ci95": 0.01, "params": 1e6 + i, "flops": 1e6}
        failed = {"status": "failed", "error": "too dark"} if i == 150 else {"status": "completed", "metrics": metrics}
        journal.write(Trial(i, {"width": i}, 0, 1, **failed))
    journal.close()
    shown = nas_meta("trials", tmp_path).stdout
    assert "the last 100 of 150 trials; --last 0 shows all" in shown and "width=51\n" in shown and "too dark" in shown
    assert "width=50\n" not in shown and "width=50\n" in nas_meta("trials", tmp_path, "--last", 0).stdout
    run = load_run(tmp_path)
    assert [t.id for t in run.listed(3)] == [148, 149, 150]
    assert [t.id for t in run.listed(3, "accuracy")] == [99, 98, 97]
    assert [t.id for t in run.listed(2, "params")] == [1, 2]  # the smaller the better
    assert run.listed(None, "params")[-1].id == 150 and run.count == 150
    assert "did you mean 'params'" in nas_meta("trials", tmp_path, "--sort", "param", check=2).stderr


def test_a_run_that_is_none_is_a_sentence(tmp_path):
    assert "is not a run: it has no journal.sqlite" in nas_meta("trials", tmp_path, check=1).stderr
    (tmp_path / "journal.sqlite").write_bytes(b"not a database at all, but long enough to look like one" * 20)
    assert "cannot be read" in nas_meta("trials", tmp_path, check=1).stderr


def test_a_journal_of_a_newer_version_is_refused_in_words(finished, tmp_path):
    _, directory, _ = finished
    shutil.copytree(directory, tmp_path / "newer")
    with sqlite3.connect(tmp_path / "newer" / "journal.sqlite") as db:
        db.execute("UPDATE info SET value = '99' WHERE key = 'version'")
    assert "written by a newer nas-meta (version 99" in nas_meta("trials", tmp_path / "newer", check=1).stderr


@pytest.mark.parametrize("learner", ["protonet", pytest.param("maml", marks=pytest.mark.slow)])
def test_a_trial_is_the_same_wherever_and_whenever_it_runs(learner, small_config):
    """Same architecture, seed and episodes: the same numbers, whatever ran before in the process."""
    small_config["learner"] = {"name": learner, "steps": 4, "lr": 1e-3}
    resolved = resolve(small_config)
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, 1)
    one, other = (space.sample(np.random.default_rng(seed)) for seed in (1, 2))
    accuracy = [
        result_of(evaluation.trial(a, seed)).metrics["accuracy"]
        for a, seed in ((one, 5), (other, 6), (one, 5), (one, 6))
    ]
    losses = [[p.values["loss"] for p in evaluation.trial(one, seed)] for seed in (5, 5, 6)]
    assert accuracy[0] == accuracy[2]
    assert losses[0] == losses[1] != losses[2]
