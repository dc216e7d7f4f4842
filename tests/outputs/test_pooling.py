"""Pooling is part of a model: exports carry it, and a pretrained folder's own pooling is used."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from command_line import nas_meta

from nas_meta import search
from nas_meta.config.model_pooling import own_pooling, pooling_difference
from nas_meta.config.resolved import resolve
from nas_meta.models.encoder import Encoder
from nas_meta.outputs.export.folder import export
from nas_meta.tasks.packaged_models import MINILM

TEXTS = ["alpha bravo", "charlie delta echo foxtrot golf"]


def with_modules(model, folder, pooling):
    """Copy a model folder and write a pooling module as Sentence Transformers does."""
    shutil.copytree(model, folder)
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("pooling", "own"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode_max_tokens": True}, "max_tokens"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, "max_tokens+mean_tokens"),
        ([], None),
        ({"pooling_mode": 3}, None),
    ],
)
def test_the_pooling_of_a_folder_is_read(tiny_model, tmp_path, small_config, pooling, own):
    folder = with_modules(tiny_model, tmp_path / "model", pooling)
    assert own_pooling(folder) == own
    assert own_pooling(tiny_model) is None and own_pooling(MINILM) is None
    small_config["space"]["model"] = str(folder)
    used = resolve(small_config).sections.tasks.pooling
    assert used == (own if own in ("cls", "last") else "mean")


def test_another_pooling_than_the_folders_own_is_reported(tiny_model, tmp_path, small_config):
    small_config["space"]["model"] = str(with_modules(tiny_model, tmp_path / "model", {"pooling_mode": "cls"}))
    assert pooling_difference(resolve(small_config)) is None
    small_config["tasks"]["pooling"] = "mean"
    resolved = resolve(small_config)
    assert resolved.sections.tasks.pooling == "mean"
    assert "was trained with the pooling cls" in pooling_difference(resolved)
    small_config |= {"budget": {"trials": 1}, "learner": {"name": "protonet", "head": "none", "steps": 1}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(small_config))
    shown = nas_meta("search", tmp_path / "config.yaml", "--inline", "--run-dir", tmp_path / "run")
    assert "was trained with the pooling cls" in " ".join(shown.stderr.split())


@pytest.mark.parametrize(
    ("pooling", "learner", "folders"),
    [
        ("mean", {"name": "protonet"}, ["1_Pooling", "2_Normalize"]),
        pytest.param("cls", {"name": "protonet", "normalize": False}, ["1_Pooling"], marks=pytest.mark.slow),
        pytest.param("last", {"name": "matching"}, ["1_Pooling", "2_Normalize"], marks=pytest.mark.slow),
    ],
)
def test_sentence_transformers_loads_an_export_and_gives_the_same_embeddings(
    small_config, tmp_path, pooling, learner, folders
):
    small_config |= {"budget": {"trials": 1}, "learner": {**learner, "steps": 1}}
    small_config["tasks"]["pooling"] = pooling
    folder = export(search(small_config, tmp_path / "run", inline=True), tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    assert [m["path"] for m in modules] == ["", *folders] and own_pooling(folder) == pooling
    assert json.loads((folder / "1_Pooling" / "config.json").read_text())["word_embedding_dimension"] == 32

    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModel.from_pretrained(folder, trust_remote_code=True).eval(),
    )
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = Encoder(model, pooling)(batch["input_ids"], batch["attention_mask"])
    if "2_Normalize" in folders:
        expected = torch.nn.functional.normalize(expected, dim=-1)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    found = sentence_transformers.SentenceTransformer(str(folder), device="cpu", trust_remote_code=True).encode(TEXTS)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
