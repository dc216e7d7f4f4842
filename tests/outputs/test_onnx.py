"""ONNX folders: the same predictions as with torch, without torch, at a quarter of the size."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import nas_meta as command
from torch import nn

import nas_meta
from nas_meta.core import plugins
from nas_meta.errors import ConfigError, RunError
from nas_meta.evaluation.calibration import CALIBRATION, LEVELS, Calibration
from nas_meta.models.onnx.quantization import quantize
from nas_meta.outputs.export.calibrating import identity
from nas_meta.outputs.export.folder import export
from nas_meta.outputs.onnx import model
from nas_meta.outputs.onnx.comparison import compare
from nas_meta.outputs.onnx.description import DESCRIPTION, GRAPH
from nas_meta.outputs.onnx.folder import export_onnx
from nas_meta.outputs.onnx.learner import comparison_of
from nas_meta.outputs.onnx.session import load_parts

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ALONE = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "pydantic", "yaml", "scipy", "ray", "nni"}:
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, Forbidden())
import json, nas_meta
folder, saved, support, labels, queries = json.loads(sys.stdin.read())
classifier = nas_meta.load_classifier(folder).fit(support, labels)
found = classifier.predict_proba(queries)
again = nas_meta.load_classifier(classifier.save(saved))
assert (again.predict_proba(queries) == found).all()
classifier.partial_fit(support[:1], labels[:1])
together = classifier.predict(queries, together=True).tolist()
print(json.dumps([found.tolist(), together, classifier.set_params(refuse=0.4).predict(queries).tolist()]))
"""


@pytest.fixture(scope="module")
def run(tiny_model, labelled_texts, tmp_path_factory):
    """A search whose models have fewer heads and neurons than the pretrained one."""
    config = {
        "space": {"name": "bert-subnet", "model": str(tiny_model), "heads": [0.5], "ffn": [0.5], "min_layers": 2},
        "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 3, "shots": 1, "queries": 3},
        "learner": {"name": "protonet", "steps": 2, "head": "whitening"},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 4, "test_episodes": 20, "compare": False, "check_models": False},
        "latency": {"seconds": 0.02},
        "budget": {"trials": 1},
    }
    return nas_meta.search(config, tmp_path_factory.mktemp("onnx") / "run", inline=True)


@pytest.fixture(scope="module")
def exported(run):
    """The torch folder of the run, its ONNX folders in float32 and in INT8, and what the export in INT8 printed.

    Tracing a model takes seconds: it is traced once.
    """
    folder = run.directory.parent
    export_onnx(run, folder / "float")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "write_embedding_graph", lambda parts, file: shutil.copy(folder / "float" / GRAPH, file))
        done = command("export", run.directory, "--to", folder / "int8", "--format", "onnx", "--quantize", "int8")
    return SimpleNamespace(
        torch=export(run, folder / "torch"), float=folder / "float", int8=folder / "int8", printed=done.stdout
    )


@pytest.fixture(scope="module")
def texts(texts_by_class):
    """A support set with its labels, and queries."""
    found = texts_by_class
    names = ("class0", "class1", "class2")
    support = [text for name in names for text in found[name][:2]]
    return support, [name for name in names for _ in range(2)], [text for name in names for text in found[name][4:10]]


@pytest.mark.slow
def test_an_onnx_folder_classifies_as_the_torch_folder_without_torch(exported, texts, tmp_path):
    """In a process that can import neither torch nor transformers; the folder includes the whitening head."""
    reference, folder = (
        shutil.copytree(exported.torch, tmp_path / "t"),
        shutil.copytree(exported.float, tmp_path / "o"),
    )
    parts = nas_meta.load_classifier(reference, device="cpu").parts
    calibration = Calibration({2: [0.02 * i - 0.2 for i in range(len(LEVELS))]}, {3: 0.5})
    for each in (reference, folder):
        (each / CALIBRATION).write_text(calibration.as_json(identity(parts.learner, parts.encoder.pooling)))
    asked = json.dumps([str(folder), str(tmp_path / "saved"), *texts])
    done = subprocess.run([sys.executable, "-c", ALONE], input=asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, together, answers = json.loads(done.stdout)
    expected = nas_meta.load_classifier(reference, device="cpu").fit(*texts[:2])
    assert np.allclose(found, expected.predict_proba(texts[2]), atol=1e-4)
    assert len(set(np.round(np.ravel(found), 3))) > 10, "the probabilities say something"
    assert together == expected.partial_fit(texts[0][:1], texts[1][:1]).predict(texts[2], together=True).tolist()
    assert answers == expected.set_params(refuse=0.4).predict(texts[2]).tolist()
    assert 0 < answers.count(None) < len(answers)


def test_a_prediction_of_an_onnx_folder_is_explained_as_that_of_the_torch_folder(exported, texts):
    found, expected = (
        nas_meta.load_classifier(folder, device="cpu").fit(*texts[:2]).explain(texts[2][0])
        for folder in (exported.float, exported.torch)
    )
    assert [row.text for row in found.support] == [row.text for row in expected.support]
    assert np.allclose([row.share for row in found.support], [row.share for row in expected.support], atol=1e-3)
    assert [row.word for row in found.words] == [row.word for row in expected.words]


def test_int8_is_judged_and_the_model_card_says_how(exported, texts):
    folder, printed = exported.int8, exported.printed
    card = (folder / "README.md").read_text()
    for word in ("float32 graph: largest difference from torch", "over 36 texts", "paired difference", "20 meta-test",
                 "times smaller than float32", "95th percentile", "VNNI"):  # fmt: skip
        assert word in printed and word in card
    assert (folder / GRAPH).stat().st_size < 300_000
    assert {file.name for file in folder.iterdir()} == {
        GRAPH, DESCRIPTION, "tokenizer.json", "tokenizer_config.json", "nas_meta.yaml", "README.md",
    }  # fmt: skip
    classifier = nas_meta.load_classifier(folder).fit(*texts[:2])
    whole = classifier.predict_proba(texts[2])
    one_by_one = np.concatenate([classifier.predict_proba([text]) for text in texts[2]])
    assert np.allclose(whole, one_by_one, atol=1e-5), "a prediction does not depend on the other texts"


def test_static_scales_and_float_tables(exported, texts, tmp_path):
    """The scales of int8-static are calibrated, and the embedding tables are quantised by their own switch."""
    folder, parts = shutil.copytree(exported.float, tmp_path / "static"), load_parts(exported.float)
    feeds = [parts.inputs([text], parts.preparation.token_ids([text])) for text in texts[0]]
    quantize(exported.float / GRAPH, folder / GRAPH, "int8-static", False, feeds)
    content, dynamic = (folder / GRAPH).read_bytes(), (exported.int8 / GRAPH).read_bytes()
    assert b"table_" not in content and b"table_" in dynamic
    assert b".py" not in content and b".py" not in dynamic, "no paths of the machine that wrote the graph"
    assert b"DynamicQuantizeLinear" not in content and b"DynamicQuantizeLinear" in dynamic
    found = nas_meta.load_classifier(folder).fit(*texts[:2]).predict_proba(texts[2])
    expected = nas_meta.load_classifier(exported.float).fit(*texts[:2]).predict_proba(texts[2])
    assert 0 < np.abs(found - expected).max() < 0.3


OPTIONS = [
    ("protonet", {}), ("protonet", {"distance": "cosine"}), ("protonet", {"normalize": False, "scale": 2.0}),
    ("ridge", {"ridge": 0.3}), ("matching", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_embeddings_are_compared_as_the_learner_does(name, options):
    learner = plugins.load("learners", name)
    learner = learner(learner.Options(**options))
    encoder = SimpleNamespace(width=8)
    encoder.learned = learner.learned(encoder, 3)
    comparison = comparison_of(SimpleNamespace(learner=learner, encoder=encoder, name=name))
    comparison = json.loads(json.dumps(comparison))
    rng, labels = np.random.default_rng(0), np.array([0, 0, 0, 1, 2, 2])
    support, queries, more = (rng.normal(size=(n, 8)).astype(np.float32) for n in (6, 5, 9))
    s, y, q = torch.from_numpy(support), torch.from_numpy(labels), torch.from_numpy(queries)
    with torch.no_grad():
        expected = learner.task_logits(encoder, s, y, 3, q).softmax(1).numpy()
    found = torch.from_numpy(compare(comparison, support, labels, 3, queries)).softmax(1).numpy()
    assert np.allclose(found, expected, atol=1e-5)
    if name == "protonet":
        with torch.no_grad():
            refined = learner.refined(encoder, s, y, 3, torch.from_numpy(more))
            expected = learner.prototype_logits(encoder, refined, q).numpy()
        assert np.allclose(compare(comparison, support, labels, 3, queries, more), expected, atol=1e-4)


REFUSED = sorted({row.name for row in plugins.installed("learners")} - {"protonet", "ridge", "matching"})


@pytest.mark.parametrize("name", [*REFUSED, "matching"])
def test_learners_that_need_torch_are_refused_by_name(name):
    learner = plugins.load("learners", name)
    learner = learner(learner.Options(**({"full_context": True} if name == "matching" else {})))
    with pytest.raises(ConfigError, match=f"the learner '{name}'.* adapts with torch.*an export without --format onnx"):
        comparison_of(SimpleNamespace(learner=learner, encoder=None, name=name))


@pytest.mark.slow
def test_a_graph_that_differs_or_cannot_be_translated_is_not_written(run, exported, tmp_path, monkeypatch):
    class Untranslatable(nn.Module):
        def forward(self, *inputs):
            return inputs[0] if inputs[0].sum() > 3 else inputs[1]

    with monkeypatch.context() as changed:
        changed.setattr(model, "write_embedding_graph", lambda parts, file: shutil.copy(exported.int8 / GRAPH, file))
        with pytest.raises(RunError, match=r"the ONNX graph differs from the torch model by .*nothing was written"):
            export_onnx(run, tmp_path / "differs")
    monkeypatch.setattr("nas_meta.outputs.onnx.graph.EmbeddingGraph", lambda *_: Untranslatable())
    with pytest.raises(ConfigError, match="the model cannot be exported as an ONNX graph"):
        export_onnx(run, tmp_path / "untranslatable")
    assert not list(tmp_path.iterdir())


def test_bad_input_is_refused_in_a_sentence(run, exported, tmp_path, monkeypatch):
    folder, to = exported.int8, ["--to", tmp_path / "new"]
    for arguments, sentence in (
        ([*to, "--format", "onx"], "--format is 'onx'; did you mean 'onnx'"),
        ([*to, "--quantize", "int8"], "expected --format onnx with it"),
        ([*to, "--format", "onnx", "--quantize", "int4"], "--quantize is 'int4'"),
    ):
        assert sentence in command("export", run.directory, *arguments, check=2).stderr
    assert "is not empty" in command("export", run.directory, "--to", folder, "--format", "onnx", check=1).stderr
    with pytest.raises(ConfigError, match="which runs on the device cpu"):
        nas_meta.load_classifier(folder, device="cuda")
    with pytest.raises(ConfigError, match="is not a run, so it has no trial 2"):
        nas_meta.load_classifier(folder, trial=2)
    with pytest.raises(ConfigError, match=r"onnx\.json has the version 9"):
        nas_meta.load_classifier(changed(folder, tmp_path / "newer", version=9))
    with pytest.raises(ConfigError, match=r"onnx\.json is damaged"):
        nas_meta.load_classifier(changed(folder, tmp_path / "damaged", width="8"))
    with pytest.raises(ConfigError, match=r"'protonet' compares embeddings by 'telepathy'; expected one of"):
        nas_meta.load_classifier(changed(folder, tmp_path / "unknown", comparison={"kind": "telepathy"}))
    with pytest.raises(ConfigError, match=r"onnx\.json describes a model that takes .* and gives 7 numbers"):
        nas_meta.load_classifier(changed(folder, tmp_path / "narrow", width=7))
    for name in (GRAPH, "tokenizer.json"):
        broken = shutil.copytree(folder, tmp_path / f"broken-{name}")
        (broken / name).write_bytes(b"nothing")
        with pytest.raises(ConfigError, match="cannot be loaded"):
            nas_meta.load_classifier(broken)
    fitted = nas_meta.load_classifier(folder).fit(["alpha", "bravo"], ["a", "b"])
    saved = fitted.save(tmp_path / "saved")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "safetensors.numpy", None)
        for call in (lambda: fitted.save(tmp_path / "again"), lambda: nas_meta.load_classifier(saved)):
            with pytest.raises(ConfigError, match="needs the package safetensors, which is not installed"):
                call()
    for package in ("onnxruntime", "tokenizers"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(ConfigError, match=f"needs the package {package}, which is not installed: pip install"):
                nas_meta.load_classifier(folder)


def changed(folder, target, **values):
    """Copy a folder with other values in its description."""
    shutil.copytree(folder, target)
    document = json.loads((target / DESCRIPTION).read_text())
    (target / DESCRIPTION).write_text(json.dumps(document | values))
    return target
