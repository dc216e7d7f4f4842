"""Why a text gets its class: shares that sum to the learner's own score, and words that are left out."""

import json

import numpy as np
import pytest
from command_line import nas_meta as command

import nas_meta
from nas_meta.errors import ConfigError, DataError
from nas_meta.outputs.explain.shares import contributions
from nas_meta.outputs.onnx.comparison import compare

COMPARISONS = {
    "euclidean": {"kind": "prototypes", "distance": "euclidean", "normalize": True, "scale": 10.0},
    "plain": {"kind": "prototypes", "distance": "euclidean", "normalize": False, "scale": 1.0},
    "cosine": {"kind": "prototypes", "distance": "cosine", "normalize": True, "scale": 7.0},
    "ridge": {"kind": "ridge", "ridge": 0.5, "scale": 4.0, "bias": 0.3},
    "attention": {"kind": "attention", "scale": 10.0},
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_contributions_and_the_constant_sum_to_the_score_that_the_learner_computes(name):
    rng = np.random.default_rng(0)
    support, labels, query = rng.normal(size=(6, 8)), np.array([0, 0, 0, 1, 2, 2]), rng.normal(size=8)
    logits = compare(COMPARISONS[name], support, labels, 3, query[None])[0]
    for target in range(3):
        found = contributions(COMPARISONS[name], support, labels, 3, query, target)
        probability = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        expected = probability[target] if name == "attention" else logits[target]
        assert found.total == pytest.approx(expected, rel=1e-9)
        assert np.abs(found.shares).sum() == pytest.approx(1)
        others = found.of[labels != target]
        assert others.any() if name == "ridge" else not others.any()  # whose score depends on the other classes


@pytest.fixture(scope="module")
def run(tiny_model, labelled_texts, tmp_path_factory):
    """A run of one trial, whose model classifies."""
    config = {
        "space": {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0], "ffn": [1.0], "min_layers": 2},
        "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 3, "shots": 1, "queries": 2},
        "learner": {"name": "protonet", "steps": 1, "head": "none"},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 2, "test_episodes": 2, "compare": False},
        "latency": {"seconds": 0.02},
        "budget": {"trials": 1},
    }
    return nas_meta.search(config, tmp_path_factory.mktemp("explained") / "run", inline=True)


@pytest.fixture(scope="module")
def texts(labelled_texts):
    """Texts by class."""
    found = {}
    for line in labelled_texts.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["label"], []).append(row["text"])
    return found


@pytest.fixture
def classifier(run, texts):
    examples = texts["class0"][:3] + texts["class1"][:1] + texts["class2"][:2]
    return nas_meta.load_classifier(run).fit(examples, ["a"] * 3 + ["b"] + ["c"] * 2)


def test_a_prediction_is_explained_by_its_support_examples_and_words(classifier, texts):
    text = texts["class0"][5]
    explanation = classifier.explain(text)
    assert explanation.label == classifier.predict([text])[0]
    probabilities = classifier.predict_proba([text])[0]
    assert explanation.probability == pytest.approx(probabilities.max())
    assert len(explanation.support) == 6 and explanation.note == ""
    total = sum(row.contribution for row in explanation.support) + explanation.constant
    state = classifier.fitted
    z = classifier.parts.embed([text], 1, None)
    logits = classifier.parts.logits(state.z, state.labels, 3, z, None)[0]
    assert (explanation.score, total) == ("logit", pytest.approx(float(logits.max()), abs=1e-3))
    assert explanation.support[0].text in texts["class0"] + texts["class1"] + texts["class2"]
    words = text.split()
    assert sorted(w.position for w in explanation.words) == list(range(len(words)))
    strongest = explanation.words[0]
    without = " ".join(words[: strongest.position] + words[strongest.position + 1 :])
    column = classifier.classes_.tolist().index(explanation.label)
    fallen = probabilities[column] - classifier.predict_proba([without])[0, column]
    assert strongest.effect == pytest.approx(fallen, abs=1e-6)
    assert [w.effect for w in explanation.words] == sorted((w.effect for w in explanation.words), reverse=True)


def test_a_saved_classifier_keeps_no_texts_and_explains_without_them(classifier, texts, tmp_path):
    text = texts["class1"][5]
    saved = classifier.save(tmp_path / "saved")
    assert texts["class0"][0] not in (saved / "classifier.json").read_text()
    restored = nas_meta.load_classifier(saved)
    explanation = restored.explain(text)
    assert {row.text for row in explanation.support} == {None}
    shares = [row.share for row in explanation.support]
    assert shares == pytest.approx([row.share for row in classifier.explain(text).support], abs=1e-6)
    restored.partial_fit([texts["class1"][2]], ["b"])
    assert {row.text for row in restored.explain(text).support} == {None}, "it does not know which text is which"
    classifier.partial_fit([texts["class1"][2]], ["b"])
    assert texts["class1"][2] in {row.text for row in classifier.explain(text).support}


def test_refined_classes_have_no_shares_and_the_explanation_states_it(classifier, run, texts):
    examples = texts["class0"][:2] + texts["class1"][:2]
    refined = nas_meta.load_classifier(run).fit(examples, ["a", "a", "b", "b"], unlabelled=texts["class0"][4:8])
    explanation = refined.explain(texts["class0"][9])
    assert "refines its classes with unlabelled texts" in explanation.note
    assert [row.share for row in explanation.support] == [None] * 4
    similar = [row.similarity for row in explanation.support]
    assert similar == sorted(similar, reverse=True)


def test_what_cannot_be_explained_is_refused_in_one_sentence(classifier, run):
    with pytest.raises(ConfigError, match="the classifier has no classes yet"):
        nas_meta.load_classifier(run).explain("a text")
    with pytest.raises(DataError, match="takes one text"):
        classifier.explain(["two", "texts"])
    assert classifier.explain("word").words == []


def test_the_command_explains_a_prediction(run, texts, tmp_path):
    support = tmp_path / "support.jsonl"
    rows = [{"text": text, "label": name} for name in ("class0", "class1") for text in texts[name][:2]]
    support.write_text("\n".join(map(json.dumps, rows)))
    text = texts["class0"][5]
    shown = command("explain", run.directory, text, "--support", support).stdout
    assert "Support examples" in shown and "Words" in shown and "logit" in shown
    document = json.loads(command("explain", run.directory, text, "--support", support, "--json").stdout)
    assert document["label"] in shown
    total = document["constant"] + sum(row["contribution"] for row in document["support"])
    assert total == pytest.approx(document["value"])
    assert "--support is missing" in command("explain", run.directory, text, check=2).stderr
