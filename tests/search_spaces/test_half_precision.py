"""Checkpoints in half precision are loaded, trained and exported in float32."""

import json

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from nas_meta import search
from nas_meta.config.pretraining import load_model
from nas_meta.outputs.export.exported_model import evaluate_folder
from nas_meta.outputs.export.folder import export
from search_spaces.pretrained.loading import load_pretrained


@pytest.fixture(params=["bfloat16", "float16"])
def half(request, tiny_model, tmp_path):
    """Folder of the tiny model in half precision."""
    folder = tmp_path / request.param
    AutoModel.from_pretrained(tiny_model, dtype=request.param).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def precisions(model):
    return {p.dtype for p in model.parameters()}


@pytest.mark.parametrize(
    ("space", "learner"),
    [("bert-subnet", "maml"), pytest.param("peft-bert", "protonet", marks=pytest.mark.slow)],
)
def test_a_search_trains_and_exports_in_float32(small_config, half, tmp_path, space, learner):
    config = small_config | {
        "space": {"name": space, "model": str(half)},
        "learner": {"name": learner, "steps": 1},
        "evaluation": {"episodes": 2, "test_episodes": 2, "compare": False},
        "budget": {"trials": 1},
    }
    run = search(config, tmp_path / "run", inline=True)
    folder = export(run, tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert precisions(AutoModel.from_pretrained(folder, trust_remote_code=True)) == {torch.float32}


def test_a_half_precision_folder_is_evaluated_and_adapted_in_float32(small_config, half):
    from nas_meta.config.resolved import resolve

    assert precisions(load_pretrained(str(half))) == precisions(load_model(str(half), "space.model")) == {torch.float32}
    assert 0 < evaluate_folder(half, resolve(small_config), episodes=3)["accuracy"] <= 1
