"""The layout of a query with its labels, and the probe of causality."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from nas_meta.models.causal_lm import language_model, lay_out
from nas_meta.models.causality import is_causal
from nas_meta.models.evaluating import inference

SIZE = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
VISIBLE = """
x x x x . . . . .
x x x x x . . . .
x x x x x x . . .
x x x x x x x . .
x x x x x . . x .
x x x x x . . . x
"""


def test_a_row_is_laid_out_as_the_docstring_draws_it():
    q, a, b, c = [10, 11], [20, 21, 22], [30, 31], [40]
    longer = np.arange(6)
    rows = lay_out([np.array(q), longer], [[np.array(a), np.array(b), np.array(c)], [np.array(c)]], past=3)
    assert rows.ids[0].tolist() == [10, 11, 20, 21, 30, 0]
    assert rows.positions[0].tolist() == [3, 4, 5, 6, 5, 0]
    drawn = [" ".join("x" if cell else "." for cell in row) for row in rows.visible[0]]
    assert drawn == VISIBLE.strip().splitlines()
    assert rows.source.tolist() == [1, 2, 3, 1, 4, 1, 11]
    assert rows.target.tolist() == [20, 21, 22, 30, 31, 40, 40]
    assert rows.label.tolist() == [0, 0, 0, 1, 1, 2, 3]


MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZE, intermediate_size=32), True),
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2), True),
    "mixture of experts": (
        MixtralForCausalLM,
        MixtralConfig(**SIZE, intermediate_size=32, num_key_value_heads=2, num_local_experts=4),
        True,
    ),
    "bert": (BertForMaskedLM, BertConfig(**SIZE, intermediate_size=32), False),
}


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_causal_if_no_state_depends_on_later_tokens(name, scale):
    kind, config, expected = MODELS[name]
    for seed in range(4):
        torch.manual_seed(seed)
        model = kind(config).train()
        with torch.no_grad():
            model.get_input_embeddings().weight *= scale
        body = language_model(model).body
        assert is_causal(body) == is_causal(body, (1, 19)) == expected
        assert body.training


def test_a_model_without_token_states_is_not_causal():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(9, 4)

        def forward(self, input_ids, attention_mask):
            return self.table(input_ids)

    assert not is_causal(Bag(), (1, 2))


def test_inference_restores_the_training_mode_after_an_exception():
    model = nn.Dropout()
    with inference(model) as same:
        assert same is model and not model.training and not torch.is_grad_enabled()
    assert model.training and torch.is_grad_enabled()
    with pytest.raises(ValueError, match="broken"), inference(model.eval()):
        raise ValueError("broken")
    assert not model.training and torch.is_grad_enabled()
