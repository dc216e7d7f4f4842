"""Models that nas-meta cannot use are refused in one sentence: PEFT adapters, T5, BatchNorm under MAML."""

import json

import pytest
import torch
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from nas_meta import search
from nas_meta.config.pretraining import load_model
from nas_meta.errors import ConfigError, TrialError
from nas_meta.learners.anil import ANIL
from nas_meta.learners.maml import MAML, MAMLOptions
from nas_meta.learners.protonet import ProtoNet


def refusal(config, tmp_path):
    with pytest.raises(ConfigError) as refused:
        search(config, tmp_path / "run", inline=True)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("space", ["bert-subnet", "peft-bert", "cell-encoder", "decoder-subnet"])
def test_a_peft_adapter_is_not_a_model(small_config, tiny_model, tmp_path, space):
    folder = tmp_path / "adapter"
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "bert"}))
    message = refusal(small_config | {"space": {"name": space, "model": str(folder)}}, tmp_path)
    assert message.startswith(f"space.model '{folder}' is a PEFT adapter, not a model; expected a whole model")
    with pytest.raises(ConfigError, match=r"pretraining\.inherit '.*' is a PEFT adapter"):
        load_model(str(folder), "pretraining.inherit")


@pytest.mark.parametrize("space", ["bert-subnet", "peft-bert", "cell-encoder"])
def test_an_encoder_of_t5_is_refused_by_its_class(small_config, tiny_model, tmp_path, space):
    folder = tmp_path / "t5"
    T5EncoderModel(
        T5Config(vocab_size=80, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=4, decoder_start_token_id=0)
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    message = refusal(small_config | {"space": {"name": space, "model": str(folder)}}, tmp_path)
    assert f"space.model '{folder}' is a " in message and "; expected a" in message


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.norm = torch.nn.Embedding(9, 4), torch.nn.BatchNorm1d(4)


def test_batch_norm_is_refused_by_maml_alone():
    with pytest.raises(TrialError, match="MAML cannot adapt Net, because its norm is a BatchNorm1d"):
        MAML().equip(Net())
    MAML(MAMLOptions(adapt="head")).equip(Net())
    ANIL().equip(Net())
    ProtoNet().equip(Net())
