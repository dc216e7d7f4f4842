"""The few-shot classifier: every learner, every kind of label, and what is saved."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from installed import marked
from safetensors.torch import save_file
from tiny_decoder import save_tiny
from typer.testing import CliRunner

import nas_meta
from nas_meta.cli.main import app
from nas_meta.core import plugins
from nas_meta.errors import ConfigError, DataError, NasMetaError, PluginError, RunError
from nas_meta.learners.heads import Map
from nas_meta.outputs.export.exported_model import CONFIG, LEARNED, learned_state
from nas_meta.outputs.export.folder import export

LEARNERS = sorted(row.name for row in plugins.installed("learners"))
FEWER_STEPS = {"finetune": {"adapt_steps": 2}, "reptile": {"adapt_steps": 2}}
FIXED_WAYS = [name for name in LEARNERS if not plugins.load("learners", name).any_ways]


@pytest.fixture(scope="module")
def exported(tiny_model, labelled_texts, tmp_path_factory):
    """Exports the model of a trial with a learner: the learner of a real export is replaced, without a search."""
    made = {}

    def search_and_export(kind):
        folder = tmp_path_factory.mktemp(kind)
        space = {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0], "ffn": [1.0], "min_layers": 2}
        if kind == "decoder":
            texts = [json.loads(line)["text"] for line in labelled_texts.read_text().splitlines()]
            save_tiny("qwen3", folder / "decoder", texts, positions=512)
            space = {"name": "decoder-subnet", "model": str(folder / "decoder"), "groups": [1.0], "heads": [1.0],
                     "ffn": [1.0], "importance_episodes": 2, "min_layers": 2}  # fmt: skip
        config = {
            "space": space,
            "tasks": {
                "source": "jsonl",
                "path": str(labelled_texts),
                "ways": 3,
                "shots": 1,
                "queries": 2,
                "train_ways": 3,
            },  # what every learner can have
            "learner": {"name": "protonet", "steps": 1, "head": "none"},  # which all learners have
            "strategy": {"name": "random"},
            "evaluation": {"episodes": 2, "test_episodes": 2, "compare": False},
            "latency": {"seconds": 0.02},
            "budget": {"trials": 1},
        }
        return export(nas_meta.search(config, folder / "run", inline=True), folder / "model")

    def export_of(learner, **options):
        options = FEWER_STEPS.get(learner, {}) | options
        kind = "decoder" if learner == "in-context" else "encoder"
        if kind not in made:
            made[kind] = search_and_export(kind)
        key = json.dumps([learner, options])
        if (learner, options) == ("protonet", {}):
            return made[kind]
        if key not in made:
            folder = shutil.copytree(made[kind], tmp_path_factory.mktemp(learner) / "model")
            document = yaml.safe_load((folder / CONFIG).read_text())
            (folder / CONFIG).write_text(yaml.safe_dump(document | {"learner": {"name": learner, **options}}))
            torch.manual_seed(0)
            if learned := learned_state(nas_meta.load_classifier(folder).parts.encoder):
                save_file(learned, folder / LEARNED)
            made[key] = folder
        return made[key]

    return export_of


@pytest.fixture(scope="module")
def support(texts_by_class):
    """An imbalanced support set of three classes, one of them with a single text."""
    texts = texts_by_class["class0"][:3] + texts_by_class["class1"][:1] + texts_by_class["class2"][:2]
    return texts, ["a/b"] * 3 + ["c d"] + ["e"] * 2


@pytest.fixture(scope="module")
def queries(texts_by_class):
    return [text for name in ("class0", "class1", "class2") for text in texts_by_class[name][4:7]]


@pytest.mark.parametrize("learner", marked(LEARNERS, ["maml", "protonet"]))
def test_every_learner_fits_predicts_and_is_saved(exported, support, queries, learner, tmp_path):
    texts, labels = support
    folder = exported(learner)
    classifier = nas_meta.load_classifier(folder, device="cpu").fit(texts, labels)
    probabilities = classifier.predict_proba(queries)
    assert classifier.classes_.tolist() == ["a/b", "c d", "e"]
    assert probabilities.shape == (9, 3) and np.allclose(probabilities.sum(1), 1)
    assert classifier.predict(queries).tolist() == classifier.classes_[probabilities.argmax(1)].tolist()
    order = [5, 3, 0, 4, 2, 1]
    permuted = nas_meta.load_classifier(folder, device="cpu").fit([texts[i] for i in order], [labels[i] for i in order])
    assert np.allclose(permuted.predict_proba(queries), probabilities, atol=1e-5)
    assert np.allclose(classifier.predict_proba(queries[:1]), probabilities[:1], atol=1e-5), "queries are independent"
    saved = classifier.save(tmp_path / "saved")
    assert {file.suffix for file in saved.iterdir()} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in saved.iterdir()) < 10_000
    assert np.array_equal(nas_meta.load_classifier(saved, device="cpu").predict_proba(queries), probabilities)


@pytest.mark.parametrize("learner", marked(LEARNERS, ["matching", "protonet", "ridge"]))
def test_partial_fit_equals_fit_on_everything(exported, support, queries, learner):
    texts, labels = support
    folder = exported(learner)
    steps = nas_meta.load_classifier(folder, device="cpu").fit(texts[:4], labels[:4])
    steps.partial_fit(texts[4:], labels[4:])  # a new class
    whole = nas_meta.load_classifier(folder, device="cpu").fit(texts, labels)
    assert steps.classes_.tolist() == whole.classes_.tolist()
    assert np.allclose(steps.predict_proba(queries), whole.predict_proba(queries), atol=1e-5)


@pytest.mark.parametrize("learner", marked(LEARNERS, ["maml", "matching", "protonet", "ridge"]))
def test_many_classes_are_learned_or_refused_in_a_sentence(exported, texts_by_class, learner):
    texts = [text for members in texts_by_class.values() for text in members][:120]
    labels = list(range(120))
    classifier = nas_meta.load_classifier(exported(learner), device="cpu")
    if learner in FIXED_WAYS:
        with pytest.raises(ConfigError, match=rf"120 classes, but the learner '{learner}'.* 3 classes; expected"):
            classifier.fit(texts, labels)
    else:
        if learner == "in-context":
            texts, labels = texts[:20], labels[:20]  # a prompt holds as many
        assert classifier.fit(texts, labels).predict_proba(texts[:2]).shape == (2, len(labels))


@pytest.mark.parametrize(
    "labels", [[3, 1, 1, 3, 1, 3], [True, False, False, True, True, False], ["x/y", "z", "z", "x/y", "z", "z"]]
)
def test_labels_keep_their_type(exported, support, labels, tmp_path):
    classifier = nas_meta.load_classifier(exported("protonet")).fit(support[0], labels)
    classifier = nas_meta.load_classifier(classifier.save(tmp_path / "saved"))
    predicted = classifier.predict(support[0]).tolist()
    assert classifier.classes_.tolist() == sorted(set(labels)) and {type(p) for p in predicted} == {type(labels[0])}
    assert classifier.fit(support[0], np.array(labels)).classes_.tolist() == sorted(set(labels))


def test_a_classifier_is_one_line_in_a_prompt(exported, support):
    folder = exported("protonet")
    classifier = nas_meta.load_classifier(folder)
    assert repr(classifier) == f"FewShotClassifier({str(folder)!r}, protonet, not fitted)"
    classifier.fit(["a text"] * 7, ["bad\x1b[31m", *"bcdefg"])
    assert repr(classifier).endswith(r"protonet, 7 classes: b, bad\x1b[31m, c, d, e, …)")
    assert "refuse=0.1, 7 classes" in repr(classifier.set_params(refuse=0.1))


def test_a_prototype_of_an_imbalanced_class_is_the_mean_of_its_texts(exported, support, queries):
    import torch.nn.functional as F

    from nas_meta.outputs.classifier.adaptation import embeddings

    texts, labels = support
    classifier = nas_meta.load_classifier(exported("protonet")).fit(texts, labels)
    z = F.normalize(embeddings(classifier.parts, texts + queries, 8, None), dim=-1)
    means = torch.stack([z[:3].mean(0), z[3], z[4:6].mean(0)])
    expected = (-10 * torch.cdist(z[6:], means).square()).softmax(-1)
    assert np.allclose(classifier.predict_proba(queries), expected.numpy(), atol=1e-4)


def test_a_run_gives_the_classifier_of_its_export(exported, support, queries):
    folder = exported("protonet")
    from_run = nas_meta.load_classifier(folder.parent / "run", trial=1).fit(*support)
    from_folder = nas_meta.load_classifier(folder).fit(*support)
    assert np.allclose(from_run.predict_proba(queries), from_folder.predict_proba(queries), atol=1e-5)


@pytest.mark.parametrize("learner", ["anil", "finetune", "maml", "prototype-maml", "reptile"])
def test_a_long_file_is_classified_with_one_adaptation(exported, support, queries, learner, monkeypatch):
    """Each text has the probabilities that it has alone, and the gradient steps are taken once per call."""
    classifier = nas_meta.load_classifier(exported(learner), device="cpu").fit(*support)
    expected = classifier.predict_proba(queries)
    monkeypatch.setattr("nas_meta.outputs.classifier.adaptation.CHUNK", 4)
    done, steps, before = [], [], torch.autograd.grad
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: [steps.append(1), before(*a, **k)][1])
    monkeypatch.setattr(torch.Tensor, "backward", lambda *a, **k: [steps.append(1), backward(*a, **k)][1])
    assert np.allclose(classifier.predict_proba(queries, progress=done.append), expected, atol=1e-5)
    taken = len(steps)
    assert done == [4, 8, 9] and taken > 0
    classifier.predict_proba(queries[:1])
    assert len(steps) == 2 * taken, "as many steps for one text as for nine"


@pytest.mark.parametrize("options", [{}, {"distance": "cosine"}, {"normalize": False, "scale": 1.0}])
def test_unlabelled_texts_refine_prototypes(exported, texts_by_class, options):
    """Texts of a class pull its prototype towards them, and a fit without unlabelled texts is not changed."""
    texts, labels = [texts_by_class["class0"][0], texts_by_class["class1"][0]], ["a", "b"]
    more = texts_by_class["class0"][1:8] + texts_by_class["class1"][1:8]
    classifier = nas_meta.load_classifier(exported("protonet", **options)).fit(texts, labels)
    plain = classifier.predict_proba(more)
    together = classifier.predict_proba(more, together=True)
    assert not np.allclose(plain, together) and np.array_equal(classifier.predict_proba(more), plain)
    refined = classifier.fit(texts, labels, unlabelled=more).predict_proba(more)
    assert np.allclose(refined, together, atol=1e-5)
    assert np.array_equal(classifier.fit(texts, labels, unlabelled=[]).predict_proba(more), plain)


@pytest.mark.parametrize("learner", [name for name in LEARNERS if name != "protonet"])
def test_other_learners_refuse_unlabelled_texts(exported, support, learner):
    classifier = nas_meta.load_classifier(exported(learner))
    with pytest.raises(ConfigError, match=f"'{learner}' cannot use unlabelled examples"):
        classifier.fit(*support, unlabelled=["alpha"])
    with pytest.raises(ConfigError, match=f"'{learner}' cannot use unlabelled examples"):
        classifier.fit(*support).predict(["alpha"], together=True)


def test_a_text_of_a_megabyte_is_cut(exported, support):
    classifier = nas_meta.load_classifier(exported("protonet")).fit(*support)
    assert classifier.predict(["alpha " * 200_000, "x" * 2_000_000]).shape == (2,)


@pytest.mark.parametrize(
    ("texts", "labels", "sentence"),
    [
        (["alpha", "bravo"], ["a", "a"], "all examples have the label 'a'; expected at least two classes"),
        ([], [], "there are no examples; expected at least one of every class"),
        (["alpha"], ["a", "b"], "there are 1 examples and 2 labels"),
        (["alpha", None], ["a", "b"], r"texts\[1\] is None.*; the model takes texts"),
        (["alpha", " "], ["a", "b"], r"texts\[1\] is an empty text"),
        ("alpha", ["a"], "texts is a str; expected a list of texts"),
        (["alpha", "bravo"], ["a", 1], "the types int and str; expected labels of one type"),
        (["alpha", "bravo"], ["a", None], "a label is None; expected strings"),
        (["alpha", "bravo"], [0.5, 1.5], "a label is 0.5; expected strings"),
    ],
)
def test_bad_examples_are_refused_in_a_sentence(exported, texts, labels, sentence):
    with pytest.raises(DataError, match=sentence):
        nas_meta.load_classifier(exported("protonet")).fit(texts, labels)


def test_a_label_that_the_classifier_never_saw_is_refused(exported, support):
    classifier = nas_meta.load_classifier(exported("protonet")).fit(*support)
    assert classifier.score(*support) >= 0.5
    with pytest.raises(DataError, match="the label 'f' is not a class of the classifier"):
        classifier.score(["alpha"], ["f"])


def test_settings_are_read_and_changed(exported, support):
    classifier = nas_meta.load_classifier(exported("protonet"), batch_size=3)
    assert classifier.get_params() == {"batch_size": 3, "refuse": None, "class_names": None}
    assert classifier.set_params(batch_size=5).get_params()["batch_size"] == 5
    for wrong in ({"batch_size": 0}, {"batchsize": 1}):
        with pytest.raises(ConfigError, match=r"expected a positive integer|did you mean 'batch_size'"):
            classifier.set_params(**wrong)
    with pytest.raises(ConfigError, match=r"expected a call of fit\(texts, labels\)"):
        classifier.predict(["alpha"])


def test_what_is_no_model_is_refused_in_a_sentence(exported, tiny_model, tmp_path):
    for folder in (tmp_path, tmp_path / "missing", tiny_model):
        with pytest.raises(ConfigError, match="is not an exported model"):
            nas_meta.load_classifier(folder)
    with pytest.raises(ConfigError, match="is not a run, so it has no trial 3"):
        nas_meta.load_classifier(exported("protonet"), trial=3)
    foreign = shutil.copytree(exported("protonet"), tmp_path / "foreign")
    document = yaml.safe_load((foreign / CONFIG).read_text())
    document["learner"]["name"] = "theirs.py:Learner"
    (foreign / CONFIG).write_text(yaml.safe_dump(document))
    with pytest.raises(PluginError, match=r"theirs.py:Learner, whose code would be run; expected --allow-plugins"):
        nas_meta.load_classifier(foreign)
    refused = str(CliRunner().invoke(app, ["evaluate", str(foreign)]).exception)
    assert "theirs.py:Learner, whose code would be run; expected --allow-plugins" in refused
    damaged = shutil.copytree(exported("protonet"), tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        nas_meta.load_classifier(damaged)


def test_a_saved_classifier_refuses_another_model_and_damage(exported, support, tmp_path):
    saved = nas_meta.load_classifier(exported("protonet")).fit(*support).save(tmp_path / "saved")
    with pytest.raises(ConfigError, match="was fitted with another model"):
        nas_meta.load_classifier(saved, model=exported("ridge"))
    with pytest.raises(RunError, match="is not empty"):
        nas_meta.load_classifier(saved).save(saved)
    for file in saved.iterdir():
        broken = shutil.copytree(saved, tmp_path / f"broken-{file.name}")
        (broken / file.name).write_text("{}")
        with pytest.raises(NasMetaError, match=f"{file.name} (is damaged|cannot be read)"):
            nas_meta.load_classifier(broken)


def test_a_fitted_head_and_the_distance_of_evaluation_are_applied(exported, support, queries, tmp_path):
    """A head that keeps the first dimensions alone classifies as their cosine to the class means does."""
    folder = shutil.copytree(exported("protonet", head="linear", evaluation_distance="cosine"), tmp_path / "model")
    parts = nas_meta.load_classifier(folder, device="cpu").parts
    width = parts.encoder.width
    keep = torch.diag((torch.arange(width) < 4).float())
    parts.encoder.learned.head.set("linear", Map(torch.zeros(width), keep))
    save_file(learned_state(parts.encoder), folder / LEARNED)
    texts, labels = support
    found = nas_meta.load_classifier(folder, device="cpu").fit(texts, labels).predict_proba(queries)
    pool = parts.preparation.pool([*texts, *queries], np.zeros(len(texts) + len(queries), np.int64), ["unknown"])
    with torch.no_grad():
        z = F.normalize(parts.encoder.eval().embed(pool, np.arange(len(pool))), dim=-1)[:, :4]
    means = torch.stack([z[:3].mean(0), z[3], z[4:6].mean(0)])
    expected = (10.0 * F.normalize(z[6:], dim=-1) @ F.normalize(means, dim=-1).T).softmax(1)
    assert np.allclose(found, expected.numpy(), atol=1e-5)


def test_names_of_classes_are_examples_if_asked_for(exported, support, queries):
    texts, labels = support[0], ["card_lost"] * 3 + ["fee"] + ["payOut"] * 2
    named, plain, by_hand = (nas_meta.load_classifier(exported("protonet")) for _ in range(3))
    named.fit(texts, labels, class_names=True)
    by_hand.fit([*texts, "card lost", "fee", "pay Out"], [*labels, "card_lost", "fee", "payOut"])
    assert np.allclose(named.predict_proba(queries), by_hand.predict_proba(queries), atol=1e-5)
    plain.fit(texts, labels)
    assert not np.allclose(named.predict_proba(queries), plain.predict_proba(queries), atol=1e-3)
    in_steps = nas_meta.load_classifier(exported("protonet")).fit(texts[:4], labels[:4], class_names=True)
    in_steps.partial_fit(texts[4:], labels[4:])  # a new class, with its name
    assert np.allclose(in_steps.predict_proba(queries), named.predict_proba(queries), atol=1e-5)


def test_a_class_with_a_name_needs_no_example(exported, support, queries, tmp_path):
    texts, labels = support[0][:4], [0, 0, 0, 1]
    names = {0: "redcat redfox", 1: "bluebee", 7: "goldfox goldowl"}
    classifier = nas_meta.load_classifier(exported("protonet")).fit(texts, labels, class_names=names)
    assert classifier.classes_.tolist() == [0, 1, 7] and classifier.predict(["goldfox goldowl"]) == [7]
    saved = nas_meta.load_classifier(classifier.save(tmp_path / "saved"))
    assert np.allclose(saved.predict_proba(queries), classifier.predict_proba(queries), atol=1e-5)
    from_names = nas_meta.load_classifier(exported("protonet")).fit([], [], class_names=names)
    assert from_names.predict(list(names.values())).tolist() == [0, 1, 7]


def test_a_model_that_was_trained_with_names_uses_them(exported, support, queries, tmp_path):
    folder = shutil.copytree(exported("protonet"), tmp_path / "named")
    document = yaml.safe_load((folder / CONFIG).read_text())
    document["tasks"]["class_names"] = True
    (folder / CONFIG).write_text(yaml.safe_dump(document))
    by_default = nas_meta.load_classifier(folder).fit(*support).predict_proba(queries)
    asked = nas_meta.load_classifier(exported("protonet")).fit(*support, class_names=True).predict_proba(queries)
    assert np.allclose(by_default, asked, atol=1e-5)
    without = nas_meta.load_classifier(folder).fit(*support, class_names=False).predict_proba(queries)
    assert not np.allclose(without, by_default, atol=1e-3)
    with pytest.raises(DataError, match="the class 3 has no name in words; expected one in class_names="):
        nas_meta.load_classifier(folder).fit(support[0], [3, 3, 3, 4, 5, 5])
    with pytest.raises(ConfigError, match="class_names is a str; expected True, False, or the name of each class"):
        nas_meta.load_classifier(folder).set_params(class_names="yes")
