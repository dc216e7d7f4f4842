"""Packed texts: every token once, hardly any padding, and the embeddings and gradients of the texts one by one."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

from nas_meta.embedding import Encoder
from nas_meta.packing import ROW, pack, rows_of
from nas_meta.tasks.pool import Pool

SIZE = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**SIZE, intermediate_size=32, max_position_embeddings=70)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZE, intermediate_size=32, max_position_embeddings=72)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=70)
    ),
}


def pool_of(lengths):
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = rng.integers(5, 50, size=offsets[-1])
    return Pool(["a"], [""] * len(lengths), np.zeros(len(lengths), int), tokens, offsets, np.zeros(len(tokens), int))


lengths_of_texts = st.lists(st.integers(1, 70), min_size=1, max_size=40)


@given(lengths_of_texts)
def test_every_text_lies_whole_in_one_row_at_its_own_positions(lengths):
    pool = pool_of(lengths)
    indices = np.random.default_rng(1).permutation(len(lengths))
    ids, whose = pack(pool, indices, widest=70, start=2)
    assert ids.shape[1] <= 70
    assert (whose.owner < len(lengths)).sum() == sum(lengths)
    for text, index in enumerate(indices):
        here = slice(whose.first[text], whose.first[text] + lengths[index])
        assert ids.ravel()[here].tolist() == pool.tokens[pool.offsets[index] : pool.offsets[index + 1]].tolist()
        assert set(whose.owner.ravel()[here]) == {text}
        assert whose.positions.ravel()[here].tolist() == list(range(2, 2 + lengths[index]))


@given(lengths_of_texts)
def test_rows_are_balanced(lengths):
    """Graham's bound: the fullest row has at most the mean and one text more."""
    rows = rows_of(np.array(lengths), widest=512)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert len(rows) == -(-sum(lengths) // ROW)
    assert max(sum(lengths[i] for i in row) for row in rows) <= sum(lengths) / len(rows) + max(lengths)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", MODELS)
def test_embeddings_and_gradients_are_those_of_texts_one_by_one(family, pooling):
    torch.manual_seed(0)
    pool = pool_of([3, 20, 7, 1, 33, 12, 5, 9, 60])
    encoder = Encoder(MODELS[family]().double(), pooling).eval()
    assert encoder.packs_from == (2 if family == "roberta" else 0)
    indices = np.array([4, 0, 8, 3, 3, 7, 1])

    def outcome(embed):
        encoder.zero_grad()
        z = embed()
        z.square().sum().backward()
        return [z.detach(), *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)]

    together = outcome(lambda: encoder.embed(pool, indices))
    encoder.one_text_a_row = True
    alone = outcome(lambda: torch.cat([encoder.embed(pool, indices[i : i + 1]) for i in range(len(indices))]))
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-8)


def test_a_model_that_mixes_the_texts_of_a_row_is_not_packed():
    class Mixing(BertModel):
        def forward(self, input_ids, attention_mask, position_ids=None):
            output = super().forward(input_ids, attention_mask, position_ids=position_ids)
            output.last_hidden_state = output.last_hidden_state + output.last_hidden_state.mean(1, keepdim=True)
            return output

    torch.manual_seed(0)
    assert Encoder(Mixing(BertConfig(**SIZE, intermediate_size=32))).packs_from is None
