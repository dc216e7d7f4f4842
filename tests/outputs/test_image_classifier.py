"""The classifier with images, and with images that have texts."""

import numpy as np
import pytest

import nas_meta
from nas_meta.errors import DataError
from nas_meta.outputs.export.folder import export
from nas_meta.tasks.sources.digits import DigitCaptions, Digits

TINY = {"patches": [4], "depths": [1], "hidden": [16], "heads": [2], "mlp": [2.0]}


def search(folder, space, tasks):
    config = {
        "space": space,
        "tasks": {"source": tasks, "ways": 3, "shots": 1, "queries": 3, "max_tokens": 12},
        "learner": {"name": "protonet", "steps": 2, "lr": 1e-3},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 2, "test_episodes": 2, "compare": False},
        "budget": {"trials": 1},
        "latency": {"seconds": 0.02, "tokens": 8},
    }
    return nas_meta.search(config, folder / "run", inline=True)


@pytest.fixture(scope="module", params=["image", "image-text"])
def case(request, tiny_model, tmp_path_factory):
    """A run, and the examples of two classes of its meta-test."""
    folder = tmp_path_factory.mktemp(request.param)
    image = {"name": "vit", **TINY}
    text = {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0], "ffn": [1.0]}
    if request.param == "image":
        run, source = search(folder, image, "digits"), Digits()
    else:
        run, source = (
            search(folder, {"name": "tower", "image": image, "text": text, "width": 8}, "digit-captions"),
            DigitCaptions(),
        )
    (one, first), (other, second), *_ = source.load().splits["meta-test"].items()
    return run, {one: list(first)[:12], other: list(second)[:12]}


@pytest.mark.slow
def test_a_run_and_its_export_classify_alike(case, tmp_path):
    run, examples = case
    support = [example for listed in examples.values() for example in listed[:4]]
    labels = [name for name, listed in examples.items() for _ in listed[:4]]
    queries = [example for listed in examples.values() for example in listed[4:]]
    classifier = nas_meta.load_classifier(run).fit(support, labels)
    probabilities = classifier.predict_proba(queries)
    assert probabilities.shape == (16, 2) and np.allclose(probabilities.sum(1), 1)
    exported = nas_meta.load_classifier(export(run, tmp_path / "model")).fit(support, labels)
    assert np.allclose(exported.predict_proba(queries), probabilities, atol=1e-5)
    saved = nas_meta.load_classifier(exported.save(tmp_path / "saved"))
    assert np.allclose(saved.predict_proba(queries), probabilities, atol=1e-5)


def test_what_the_model_does_not_take_is_refused_by_its_place(case):
    run, examples = case
    (first, *_), (second, *_) = examples.values()
    classifier = nas_meta.load_classifier(run)
    with pytest.raises(DataError, match=r"texts\[1\] is .*; the model takes"):
        classifier.fit([first, "a text alone"], ["a", "b"])
    small = np.zeros((1, 4, 4), np.uint8)
    with pytest.raises(DataError, match=r"is an image of 1×4×4"):
        classifier.fit([first, (small, "tiny") if isinstance(second, tuple) else small], ["a", "b"])
