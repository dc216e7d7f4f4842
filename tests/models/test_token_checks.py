"""Texts are checked against the model, and weights for NaN, before anything runs."""

import shutil

import pytest
import torch
from installed import marked
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel

from nas_meta import search
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError
from nas_meta.outputs.export.exported_model import evaluate_folder

SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 16}


def shallow(folder, tokenizer, family, positions, vocabulary):
    """Save a model with these numbers of positions and tokens, beside a tokenizer."""
    config, model = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[family]
    model(config(**SHAPE, max_position_embeddings=positions, vocab_size=vocabulary, pad_token_id=0)).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def refusal(config, model, tmp_path, space="bert-subnet"):
    options = {"name": space} if model is None else {"name": space, "model": str(model)}
    with pytest.raises(ConfigError) as refused:
        search(config | {"space": options}, tmp_path / "run", inline=True)
    return str(refused.value)


@pytest.mark.parametrize("space", marked(["bert-subnet", "peft-bert"], ["bert-subnet"]))
@pytest.mark.parametrize(("family", "positions", "most"), [("bert", 6, 6), ("roberta", 7, 6)])
def test_a_text_longer_than_the_positions_is_refused(
    small_config, tiny_model, tmp_path, space, family, positions, most
):
    model = shallow(tmp_path / "model", tiny_model, family, positions, 80)
    message = refusal(small_config, model, tmp_path, space)
    assert message.startswith(f"space.model '{model}' takes texts of at most {most} tokens, but tasks.max_tokens")
    assert message.endswith(f"; expected at most {most}")
    small_config["tasks"]["max_tokens"] = most
    options = {"name": space, "model": str(model)}
    with pytest.raises(ConfigError, match=rf"at most {most} tokens, but evaluation.flops_tokens allows 32"):
        search(small_config | {"space": options}, tmp_path / "flops", inline=True)
    small_config["evaluation"]["flops_tokens"] = small_config["latency"]["tokens"] = most
    run = search(
        small_config | {"space": options, "budget": {"trials": 1}},
        tmp_path / "fits",
        inline=True,
    )
    assert run.best.status == "completed"


def test_a_token_without_an_embedding_is_refused_with_the_text(small_config, tiny_model, tmp_path):
    model = shallow(tmp_path / "model", tiny_model, "bert", 64, 20)
    message = refusal(small_config, model, tmp_path)
    assert (
        "has embeddings for 20 tokens, but its tokenizer gives the token id" in message and "of the text '" in message
    )


def test_nan_in_pretrained_weights_is_called_that(small_config, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias[3] = float("nan")
    model.save_pretrained(folder)
    expected = f"space.model '{folder}' has NaN in its weights, in encoder.layer.0.output.dense.bias"
    assert refusal(small_config, folder, tmp_path).startswith(expected)
    with pytest.raises(ConfigError, match="has NaN in its weights"):
        evaluate_folder(folder, resolve(small_config), episodes=2)


def test_a_folder_without_tokenizer_files_is_refused(small_config, tiny_model, tmp_path):
    AutoModel.from_pretrained(tiny_model).save_pretrained(tmp_path / "model")
    message = refusal(small_config, tmp_path / "model", tmp_path)
    assert "cannot be loaded: the folder has none of tokenizer.json, vocab.txt" in message


def test_models_from_scratch_are_checked_too(small_config, tiny_model, tmp_path):
    plugin = tmp_path / "small.py"
    plugin.write_text(
        "from transformers import BertConfig, BertModel\nfrom nas_meta import SearchSpace\n"
        f"class Small(SearchSpace):\n    tokenizer = {str(tiny_model)!r}\n"
        "    def choices(self):\n        return {'positions': [4, 5]}\n"
        "    def build(self, a):\n        return BertModel(BertConfig(hidden_size=32, num_hidden_layers=1,\n"
        "            num_attention_heads=4, intermediate_size=16, max_position_embeddings=a['positions']))\n"
    )
    message = refusal(small_config, None, tmp_path, f"{plugin}:Small")
    assert message.startswith("the model of Small takes texts of at most ")


@pytest.mark.parametrize("damage", ["positions", "learner", "weights"])
def test_evaluating_a_folder_that_does_not_fit_is_a_sentence(small_config, tiny_model, tmp_path, damage):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    if damage == "positions":
        shallow(folder, tiny_model, "bert", 5, 80)
    else:
        (folder / {"learner": "learner.safetensors", "weights": "model.safetensors"}[damage]).write_bytes(b"no weights")
    with pytest.raises(ConfigError) as refused:
        evaluate_folder(folder, resolve(small_config), episodes=2)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)
