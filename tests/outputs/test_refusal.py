"""``refuse``: None for texts of no class, without out-of-scope examples; probabilities are calibrated."""

import json
import shutil

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import nas_meta
from nas_meta.cli.main import app
from nas_meta.errors import ConfigError
from nas_meta.evaluation.calibration import CALIBRATION
from nas_meta.outputs.export.exported_model import CONFIG
from nas_meta.outputs.export.folder import export


@pytest.fixture(scope="module")
def run(tiny_model, labelled_texts, tmp_path_factory):
    """A run with 2-way episodes, so that each of the splits has another class."""
    config = {
        "space": {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0], "ffn": [1.0], "min_layers": 2},
        "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 2, "shots": 2, "queries": 3},
        "learner": {"name": "protonet", "head": "none", "steps": 1},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 2, "test_episodes": 2, "compare": False},
        "latency": {"seconds": 0.02},
        "budget": {"trials": 1},
    }
    return nas_meta.search(config, tmp_path_factory.mktemp("refusal") / "run", inline=True)


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    return export(run, tmp_path_factory.mktemp("refusal") / "model")


@pytest.fixture(scope="module")
def support(texts_by_class):
    return texts_by_class["class0"][:4] + texts_by_class["class1"][:4], ["a"] * 4 + ["b"] * 4


@pytest.fixture(scope="module")
def queries(texts_by_class):
    return [t for name in texts_by_class for t in texts_by_class[name][4:8]]


def uncalibrated(model, folder):
    (shutil.copytree(model, folder) / CALIBRATION).unlink()
    return folder


def test_refused_texts_get_none_and_the_others_their_class(model, support, queries, tmp_path):
    classifier = nas_meta.load_classifier(model).fit(*support)
    plain, proba = classifier.predict(queries), classifier.predict_proba(queries)
    assert None not in plain.tolist(), "off by default"
    shares = []
    for refuse in (0.001, 0.1, 0.5):
        found = classifier.fit(*support, refuse=refuse).predict(queries)
        accepted = np.array([label is not None for label in found])
        assert np.array_equal(found[accepted], plain[accepted])
        assert np.array_equal(classifier.predict_proba(queries), proba), "probabilities are those of the known classes"
        shares.append(1 - accepted.mean())
    assert shares[0] <= shares[1] < shares[2] and shares[2] > 0
    saved = nas_meta.load_classifier(classifier.save(tmp_path / "saved"))
    assert saved.refuse == 0.5 and saved.predict(queries).tolist() == found.tolist()
    assert None not in classifier.set_params(refuse=None).predict(queries).tolist()


def test_texts_of_no_class_are_refused_more_often(model, texts_by_class):
    known = [name for i, name in enumerate(texts_by_class) if i < 3]
    support = [t for name in known for t in texts_by_class[name][:6]]
    classifier = nas_meta.load_classifier(model).fit(support, [n for n in known for _ in range(6)], refuse=0.2)
    inside = [t for name in known for t in texts_by_class[name][6:]]
    outside = [t for name in list(texts_by_class)[3:] for t in texts_by_class[name]]
    refused = [np.mean([label is None for label in classifier.predict(part)]) for part in (inside, outside)]
    assert refused[0] < 0.5 < refused[1] + 0.2 and refused[0] < refused[1]


def test_probabilities_are_calibrated_alike_from_run_and_export(run, model, support, queries, tmp_path):
    classifier = nas_meta.load_classifier(model).fit(*support)
    t = classifier.parts.calibration.temperature(2)
    raw = nas_meta.load_classifier(uncalibrated(model, tmp_path / "raw")).fit(*support)
    scaled = raw.predict_proba(queries) ** (1 / t)
    expected = scaled / scaled.sum(1, keepdims=True)
    assert t != 1 and np.allclose(classifier.predict_proba(queries), expected, atol=1e-6)
    from_run = nas_meta.load_classifier(run).fit(*support)
    assert np.allclose(from_run.predict_proba(queries), expected, atol=1e-5)
    card = (model / "README.md").read_text()
    assert "expected calibration error" in card and "refuse=0.05" in card


def test_a_support_set_decides_alone_without_calibration_if_it_is_large_enough(model, support, queries, tmp_path):
    classifier = nas_meta.load_classifier(uncalibrated(model, tmp_path / "raw"))
    with pytest.raises(ConfigError, match=r"refuse is 0.05, but only 8 examples .* at least 19 such examples"):
        classifier.fit(*support, refuse=0.05)
    classifier.fit(*support, refuse=0.2)
    # The smallest of 8 leave-one-out scores is the threshold: no support text is below it when it is not left out.
    assert None not in classifier.predict(support[0]).tolist()


def test_a_calibration_of_other_options_is_ignored_and_damage_is_reported(model, tmp_path):
    other, damaged = (shutil.copytree(model, tmp_path / name) for name in ("other", "damaged"))
    document = yaml.safe_load((other / CONFIG).read_text())
    document["learner"]["scale"] = 3.0
    (other / CONFIG).write_text(yaml.safe_dump(document))
    assert nas_meta.load_classifier(other).parts.calibration is None
    (damaged / CALIBRATION).write_text("{}")
    with pytest.raises(ConfigError, match=r"calibration.json is damaged; expected what 'nas-meta export' wrote"):
        nas_meta.load_classifier(damaged)


def test_a_model_that_cannot_be_calibrated_is_exported_with_a_warning(run, monkeypatch, caplog, tmp_path):
    def damaged(*_):
        raise IndexError("index out of range in self")

    monkeypatch.setattr("nas_meta.evaluation.calibrate.calibrate", damaged)
    assert not (export(run, tmp_path / "model") / CALIBRATION).exists()
    assert "probabilities are not calibrated: index out of range in self" in caplog.text


@pytest.mark.parametrize("refuse", [0, 0.6, -0.1, True, "5 %", float("nan")])
def test_a_wrong_share_is_refused_in_a_sentence(model, support, refuse):
    with pytest.raises(ConfigError, match=r"refuse is .*; expected the share of texts"):
        nas_meta.load_classifier(model).fit(*support, refuse=refuse)


def test_a_learner_without_embeddings_cannot_refuse(model, support, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    document = yaml.safe_load((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(yaml.safe_dump(document | {"learner": {"name": "finetune", "adapt_steps": 1}}))
    with pytest.raises(ConfigError, match="the learner 'finetune' cannot refuse an answer"):
        nas_meta.load_classifier(folder).fit(*support, refuse=0.05)


def test_the_command_line_answers_none_of_these_and_measures_open_sets(model, support, tmp_path):
    file = tmp_path / "support.csv"
    file.write_text("text,label\n" + "".join(f"{t},{y}\n" for t, y in zip(*support, strict=True)))
    command = ["classify", str(model), "--support", str(file), "--refuse", "0.5", *support[0], *["zzz qqq"] * 2]
    lines = CliRunner().invoke(app, command).stdout.splitlines()
    rows = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [row["label"] is None for row in rows] == [line.startswith("none of these\t") for line in lines]
    assert any(row["label"] is None for row in rows)
    evaluate = ["evaluate", str(model), "--config", str(model / CONFIG), "--open-set", "--episodes", "2"]
    row = json.loads(CliRunner().invoke(app, [*evaluate, "--json"]).stdout)
    assert 0 <= row["oos_auroc"] <= 1 and 0 <= row["oos_fpr95"] <= 1 and row["oos_episodes"] == 100
    assert "queries of other classes: AUROC" in CliRunner().invoke(app, evaluate).stdout
