"""Packed texts: every token once, hardly any padding, and the embeddings and gradients of the texts one by one."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from nas_meta.errors import TrialError
from nas_meta.models.checks import check_pooling
from nas_meta.models.compute import Compute
from nas_meta.models.encoder import Encoder
from nas_meta.models.packing import ROW_TOKENS, assign_rows, pack
from nas_meta.tasks.pool import Pool
from search_spaces.pretrained.causal_lm import CausalStates
from search_spaces.scratch.encoder_model import EncoderConfig, EncoderModel

SIZE = {"vocab_size": 50, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**SIZE, intermediate_size=32, max_position_embeddings=70)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZE, intermediate_size=32, max_position_embeddings=72)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=70)
    ),
    "llama": lambda: CausalStates(
        LlamaForCausalLM(LlamaConfig(**SIZE, intermediate_size=32, num_key_value_heads=1, pad_token_id=0))
    ),
    "gpt2": lambda: CausalStates(
        GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=70, pad_token_id=0))
    ),
    "learned": lambda: scratch(positions="learned", norm_place="post"),
    "rotary": lambda: scratch(positions="rotary", norm="rms"),
    "alibi, near": lambda: scratch(positions="alibi", sliding_window=4),
}


def scratch(**chosen):
    config = EncoderConfig(
        vocab_size=50, hidden_size=16, num_attention_heads=2, intermediate_sizes=[32, 16], max_position_embeddings=70,
        initializer_range=0.3, pooling="attention", pad_token_id=0, **chosen,
    )  # fmt: skip
    return EncoderModel(config)


CASES = [
    *itertools.product(MODELS, ["mean", "cls", "last"]),
    *itertools.product(["learned", "rotary", "alibi, near"], ["attention"]),
]


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


def test_rows_are_assigned_and_filled_as_the_docstrings_say():
    assert assign_rows(np.array([40, 30, 20, 10, 8]), widest=64) == [[0, 3, 4], [1, 2]]
    pool = pool_of([3, 2, 2])
    ids, packing = pack(pool, np.arange(3), widest=4)
    a, b, c = (pool.tokens[i:j].tolist() for i, j in ((0, 3), (3, 5), (5, 7)))
    assert ids.tolist() == [[*a, 0], [*b, *c]]
    assert packing.owner.tolist() == [[0, 0, 0, 3], [1, 1, 2, 2]]
    assert packing.positions.tolist() == [[0, 1, 2, 0], [0, 1, 0, 1]]
    assert (packing.first.tolist(), packing.lengths.tolist()) == ([0, 4, 6], [3, 2, 2])


@given(lengths_of_texts)
def test_rows_are_balanced(lengths):
    """Graham's bound: the fullest row has at most the mean and one text more."""
    rows = assign_rows(np.array(lengths), widest=512)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert len(rows) == -(-sum(lengths) // ROW_TOKENS)
    assert max(sum(lengths[i] for i in row) for row in rows) <= sum(lengths) / len(rows) + max(lengths)


@pytest.mark.parametrize(("family", "pooling"), CASES)
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


@pytest.mark.parametrize("padded", ["right", "left"])
def test_the_last_token_is_that_of_the_mask(padded):
    torch.manual_seed(0)
    encoder = Encoder(MODELS["bert"](), "last").eval()
    ids, mask = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[1, 1, 0, 0] if padded == "right" else [0, 0, 1, 1]])
    with torch.no_grad():
        states = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(encoder(ids, mask), states[:, 1 if padded == "right" else 3])


def test_a_window_that_a_mask_for_packed_texts_puts_out_of_force_is_noticed():
    config = ModernBertConfig(
        **SIZE, intermediate_size=32, pad_token_id=0, local_attention=4, layer_types=["sliding_attention"] * 2
    )
    torch.manual_seed(0)
    assert Encoder(ModernBertModel(config)).packs_from is None
    assert Encoder(scratch(sliding_window=2)).packs_from == 0


def test_a_causal_model_that_would_see_what_is_behind_is_not_packed():
    torch.manual_seed(0)
    assert Encoder(LlamaModel(LlamaConfig(**SIZE, intermediate_size=32, pad_token_id=0))).packs_from is None


def test_the_first_token_of_a_causal_model_is_refused_as_an_embedding():
    torch.manual_seed(0)
    check_pooling(Encoder(MODELS["llama"](), "last"))
    check_pooling(Encoder(MODELS["bert"](), "cls"))
    with pytest.raises(TrialError, match=r"tasks\.pooling is cls, but CausalStates is causal"):
        check_pooling(Encoder(MODELS["llama"](), "cls"))


def test_pooling_by_attention_needs_scores():
    with pytest.raises(TrialError, match=r"tasks\.pooling is attention, but BertModel has no method pooling_scores"):
        Encoder(MODELS["bert"](), "attention")


def test_the_head_of_a_language_model_does_not_learn_from_embeddings():
    """Embeddings do not go through it; where it is the table of tokens, it learns as that one does."""
    tied = LlamaForCausalLM(LlamaConfig(**SIZE, intermediate_size=32, tie_word_embeddings=True))
    apart = LlamaForCausalLM(LlamaConfig(**SIZE, intermediate_size=32, tie_word_embeddings=False))
    learning = [
        [sum(p.numel() for p in Encoder(CausalStates(lm)).body_parameters(tables)) for tables in (False, True)]
        for lm in (tied, apart)
    ]
    assert learning[0] == learning[1] and learning[0][1] == learning[0][0] + 50 * 16


@pytest.mark.parametrize("family", ["alibi, near", "llama"])
def test_narrow_precision_changes_little(family):
    """What is masked must not become minus infinity there, of which a softmax is no number."""
    torch.manual_seed(0)
    model, pool = MODELS[family](), pool_of([3, 1, 12, 7])
    exact, narrow = (
        Encoder(model, "last", Compute(precision=precision)).eval().embed(pool, np.arange(4)).detach()
        for precision in ("fp32", "bf16")
    )
    torch.testing.assert_close(narrow, exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("pooling", ["mean", "last", "attention"])
def test_packed_texts_of_several_tasks_go_through_vmap(pooling):
    torch.manual_seed(0)
    encoder, pool = Encoder(scratch(positions="alibi"), pooling).eval(), pool_of([3, 20, 7, 1, 33, 12])
    inputs = encoder.stacked(pool, [np.arange(3), np.arange(3, 6)])
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        together = torch.vmap(lambda given: functional_call(encoder, {}, (), given))(inputs)
        torch.testing.assert_close(together.flatten(0, 1), encoder.embed(pool, np.arange(6)), atol=1e-5, rtol=1e-5)


@given(st.lists(st.lists(st.integers(0, 11), min_size=1, unique=True), min_size=1, max_size=5))
def test_remembered_embeddings_are_those_of_the_model(calls):
    """Inside the block every example passes through the model once; outside of it, always."""
    torch.manual_seed(0)
    encoder, pool, passed = Encoder(MODELS["bert"]()).eval(), pool_of(range(3, 15)), []
    embed = encoder.embed
    encoder.embed = lambda pool, indices, rows: passed.extend(indices) or embed(pool, indices, rows)
    with encoder.remembering():
        for indices in map(np.array, calls):
            with torch.no_grad():
                expected = embed(pool, indices)
            torch.testing.assert_close(encoder.embed_once(pool, indices), expected, atol=1e-5, rtol=1e-4)
    assert sorted(passed) == sorted(set().union(*calls))
    encoder.embed_once(pool, np.array(calls[0]))
    assert len(passed) == len(set().union(*calls)) + len(calls[0])
