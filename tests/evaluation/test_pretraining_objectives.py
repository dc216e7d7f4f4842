"""Objectives: what is masked, and losses beside transformers' own."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from installed import marked
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    RobertaConfig,
    RobertaForMaskedLM,
)
from words import WORDS

from nas_meta.errors import ConfigError, TrialError
from nas_meta.evaluation.pretraining.loop import make_loss, pretrain
from nas_meta.evaluation.pretraining.objectives.chunked_cross_entropy import linear_cross_entropy
from nas_meta.evaluation.pretraining.objectives.mlm import corrupt, select_targets
from nas_meta.evaluation.pretraining.objectives.simcse import contrast
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.evaluation.pretraining.pretrained_head import restore_head
from nas_meta.evaluation.pretraining.row_sampler import RowSampler
from nas_meta.models.compute import Compute
from nas_meta.models.pooling import pool_states
from nas_meta.tasks.corpus.corpus import open_corpus
from nas_meta.tasks.corpus.token_store import tokenise_corpus
from nas_meta.tasks.tokenization import load_tokenizer


@pytest.fixture(scope="module")
def corpus(tiny_model, tmp_path_factory):
    rng, folder = random.Random(0), tmp_path_factory.mktemp("corpus")
    # A word is followed by one of two: there is something to learn.
    texts = []
    for _ in range(300):
        at = rng.randrange(len(WORDS))
        text = [WORDS[at]]
        for _ in range(9):
            at = (2 * at + rng.randrange(2)) % len(WORDS)
            text.append(WORDS[at])
        texts.append(" ".join(text))
    (folder / "a.txt").write_text("\n".join(texts))
    return tokenise_corpus(open_corpus([folder]), load_tokenizer(str(tiny_model)), folder / "cache")


def bert(vocabulary=29, dropout=0.1, **changes):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertModel(BertConfig(vocab_size=vocabulary, max_position_embeddings=64, **sizes, **drop, **changes))


def llama(kind=LlamaModel, tied=False):
    torch.manual_seed(0)
    return kind(
        LlamaConfig(
            vocab_size=29, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=64, max_position_embeddings=64, tie_word_embeddings=tied,
        )
    )  # fmt: skip


def batch(objective, corpus, seed=0):
    ids, mask = RowSampler(corpus, 24, objective.packed, 0).batch(0, 8)
    return {n: torch.from_numpy(a) for n, a in objective.inputs(ids, mask, np.random.default_rng(seed)).items()}


def section(**keys):
    return PretrainingSection(**{"block": 24, "batch": 8, "steps": 20, "lr": 3e-3, **keys})


def test_the_loss_of_mlm_is_that_of_transformers(corpus):
    model = bert().eval()
    objective = make_loss(model, corpus, section(), "mean").eval()
    nn.init.normal_(objective.bias)
    theirs = BertForMaskedLM(model.config).eval()
    theirs.bert.load_state_dict(model.state_dict(), strict=False)
    head = theirs.cls.predictions
    head.transform.dense.load_state_dict(objective.dense.state_dict())
    head.transform.LayerNorm.load_state_dict(objective.norm.state_dict())
    head.decoder.bias.data.copy_(objective.bias)
    head.bias.data.copy_(objective.bias)
    inputs = batch(objective, corpus)
    labels = torch.full(inputs["input_ids"].shape, -100)
    labels.view(-1)[inputs["positions"]] = inputs["targets"]
    expected = theirs(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels)
    ours = objective(model, **inputs)
    torch.testing.assert_close(ours, expected.loss)
    # And so do the gradients of the embeddings, which both ends share.
    ours.backward(), expected.loss.backward()
    table = model.get_input_embeddings().weight.grad
    torch.testing.assert_close(table, theirs.get_input_embeddings().weight.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "config", "sizes"),
    [
        (BertForMaskedLM, BertConfig, {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}),
        (RobertaForMaskedLM, RobertaConfig, {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}),
        (DistilBertForMaskedLM, DistilBertConfig, {"dim": 32, "hidden_dim": 64, "n_layers": 1, "n_heads": 4}),
    ],
)
def test_the_head_of_a_pretrained_model_goes_on(kind, config, sizes, corpus, tmp_path):
    torch.manual_seed(0)
    whole = kind(config(vocab_size=29, max_position_embeddings=64, **sizes)).eval()
    for parameter in whole.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases, too
    whole.save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path).eval()
    objective = make_loss(model, corpus, section(), "mean").eval()
    assert restore_head(objective, str(tmp_path))
    inputs = batch(objective, corpus)
    labels = torch.full(inputs["input_ids"].shape, -100)
    labels.view(-1)[inputs["positions"]] = inputs["targets"]
    expected = whole(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).loss
    torch.testing.assert_close(objective(model, **inputs), expected)
    model.save_pretrained(tmp_path / "without")
    assert not restore_head(objective, str(tmp_path / "without"))


@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_of_clm_is_that_of_transformers(tied, corpus):
    model = llama(LlamaForCausalLM, tied).eval()
    objective = make_loss(model, corpus, section(objective="clm"), "mean")
    inputs = batch(objective, corpus)
    expected = model(**inputs, labels=inputs["input_ids"]).loss
    torch.testing.assert_close(objective(model.base_model, **inputs), expected)


def test_clm_of_a_model_without_a_head_is_that_of_one_with_tied_embeddings(corpus):
    body, whole = llama().eval(), llama(LlamaForCausalLM, tied=True).eval()
    whole.model.load_state_dict(body.state_dict())
    objective = make_loss(body, corpus, section(objective="clm"), "mean")
    inputs = batch(objective, corpus)
    torch.testing.assert_close(objective(body, **inputs), whole(**inputs, labels=inputs["input_ids"]).loss)


def test_padding_is_nothing_to_be_told(corpus):
    model = llama(LlamaForCausalLM).eval()
    objective = make_loss(model, corpus, section(objective="clm"), "mean")
    ids = batch(objective, corpus)["input_ids"][:2]
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(objective(model.base_model, ids, mask), expected)


def test_the_loss_of_simcse_is_equation_4():
    torch.manual_seed(0)
    z = torch.randn(6, 5, dtype=torch.double)
    total = 0.0
    for i in range(3):
        near = [math.exp(float(F.cosine_similarity(z[i], z[3 + j], dim=0)) / 0.05) for j in range(3)]
        total -= math.log(near[i] / sum(near)) / 3
    assert float(contrast(z, 0.05)) == pytest.approx(total, rel=1e-5)


def test_simcse_sees_every_text_twice_under_other_dropout(corpus):
    model = bert()
    objective = make_loss(model, corpus, section(objective="simcse"), "mean")
    inputs = batch(objective, corpus)
    assert inputs["input_ids"].shape[0] == 8 and inputs["attention_mask"].sum(1).max() == 12
    model.eval()
    alike = objective(model, **inputs)
    states = model(**inputs).last_hidden_state
    z = pool_states(model, states, inputs["attention_mask"], "mean")
    torch.testing.assert_close(alike, contrast(torch.cat([z, z]), 0.05))
    model.train()
    assert objective(model, **inputs) > alike


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_cross_entropy_in_parts_is_cross_entropy(rows, monkeypatch):
    monkeypatch.setattr("nas_meta.evaluation.pretraining.objectives.chunked_cross_entropy.CHUNK_ROWS", rows)
    torch.manual_seed(0)
    states, weight, bias = (torch.randn(*s, dtype=torch.double, requires_grad=True) for s in ((7, 4), (9, 4), (9,)))
    targets = torch.randint(9, (7,))
    F.cross_entropy(F.linear(states, weight, bias), targets).mul(3).backward()
    expected = [p.grad.clone() for p in (states, weight, bias)]
    for p in (states, weight, bias):
        p.grad = None
    loss = linear_cross_entropy(states, weight, bias, targets)
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(states, weight, bias), targets))
    (3 * loss).backward()
    for p, grad in zip((states, weight, bias), expected, strict=True):
        torch.testing.assert_close(p.grad, grad)
    assert torch.autograd.gradcheck(lambda s: linear_cross_entropy(s, weight.detach(), None, targets), (states,))


def test_fifteen_in_a_hundred_tokens_are_told_and_none_that_is_special(corpus):
    ids, _ = RowSampler(corpus, 40, True, 0).batch(0, 50)
    told = select_targets(ids, corpus.vocabulary, 0.15, False, np.random.default_rng(0))
    ordinary = ~corpus.vocabulary.special[ids]
    assert not told[~ordinary].any()
    assert told.sum(1).tolist() == [max(1, round(0.15 * n)) for n in ordinary.sum(1)]
    assert (select_targets(ids, corpus.vocabulary, 0.15, False, np.random.default_rng(0)) == told).all()
    # Every place is as likely as another.
    often = np.mean([
        select_targets(ids[:1], corpus.vocabulary, 0.15, False, np.random.default_rng(s))[0] for s in range(4000)
    ], axis=0)  # fmt: skip
    share = max(1, round(0.15 * ordinary[0].sum())) / ordinary[0].sum()
    assert np.abs(often[ordinary[0]] - share).max() < 4.5 * math.sqrt(share * (1 - share) / 4000)


def test_of_what_is_told_eight_tenths_are_hidden_and_one_replaced(corpus):
    vocabulary, n = corpus.vocabulary, 40_000
    tokens = np.full(n, vocabulary.ordinary[3])
    shown = corrupt(tokens, vocabulary, np.random.default_rng(0))
    deviation = 4 * math.sqrt(0.1 * 0.9 / n)
    assert (shown == vocabulary.mask).mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / n))
    others = (shown != vocabulary.mask) & (shown != tokens)
    # One of the random tokens in 24 is the token itself.
    assert others.mean() == pytest.approx(0.1 * 23 / 24, abs=deviation)
    assert not vocabulary.special[shown[others]].any() and len(set(shown[others])) == 23


def test_whole_words_are_told_or_not_at_all(corpus):
    continues = np.zeros(29, dtype=bool)
    continues[20:] = True
    vocabulary = replace(corpus.vocabulary, continues=continues)
    rng = np.random.default_rng(0)
    ids = rng.choice([2, 7, 8, 9, 20, 21, 22], (200, 40), p=[0.05, 0.2, 0.2, 0.2, 0.15, 0.1, 0.1])
    told = select_targets(ids, vocabulary, 0.15, True, rng)
    for row, mask in zip(ids, told, strict=True):
        words, current = [], []
        for i, token in enumerate(row):
            if current and (not continues[token] or row[i - 1] == 2):
                words.append(current)
                current = []
            if token != 2:
                current.append(i)
        words += [current] if current else []
        assert all(len({bool(mask[i]) for i in word}) == 1 for word in words)
        ordinary = (row != 2).sum()
        longest = max(len(w) for w in words)
        assert 1 <= mask.sum() <= max(round(0.15 * ordinary), longest)
    share = told.sum() / (ids != 2).sum()
    assert share == pytest.approx(0.15, abs=0.01)


class Bag(nn.Module):
    """A model of the author's own, with one table."""

    def __init__(self, rows=29, states=True):
        super().__init__()
        self.table, self.states = nn.Embedding(rows, 8), states

    def forward(self, input_ids, attention_mask):
        found = self.table(input_ids) + self.table(input_ids).mean(1, keepdim=True)
        return found if self.states else found.mean(1)


@pytest.mark.parametrize(
    ("model", "keys", "words"),
    [
        (bert, {"objective": "clm"}, "clm predicts each token from the tokens before it, but BertModel also sees"),
        (llama, {"objective": "mlm"}, "mlm predicts a token from the tokens on both sides .* but LlamaModel sees only"),
        (lambda: bert(vocabulary=20), {}, "the tokenizer of the corpus has 29 tokens, but BertModel has .* for 20"),
        (bert, {"block": 65}, "pretraining.block is 65, but BertModel cannot process 65 tokens"),
        (lambda: bert(dropout=0.0), {"objective": "simcse"}, "simcse makes two views .* by dropout"),
        (lambda: Bag(rows=20), {}, "predicts tokens with the input embeddings, but Bag has none that can be found"),
        (lambda: Bag(states=False), {}, r"one state per token, but Bag returns the shape \[1, 8\] for 1 text of 24"),
    ],
)
def test_a_model_that_cannot_learn_so_is_refused_in_a_sentence(model, keys, words, corpus):
    with pytest.raises(ConfigError, match=words):
        make_loss(model(), corpus, section(**keys), "mean")


def test_a_tokenizer_without_a_mask_is_refused(corpus):
    with pytest.raises(ConfigError, match="the tokenizer has none; expected a tokenizer with"):
        make_loss(bert(), replace(corpus, vocabulary=replace(corpus.vocabulary, mask=None)), section(), "mean")


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        pytest.param("mlm", bert, marks=pytest.mark.slow),
        ("mlm", Bag),
        pytest.param("clm", llama, marks=pytest.mark.slow),
        ("simcse", bert),
    ],
)
def test_what_is_learned_shows_in_the_loss(kind, model, corpus):
    built = model()
    told = section(objective=kind, steps=80, batch=16)
    objective = make_loss(built, corpus, told, "mean")
    looks = list(pretrain(built, objective, corpus, told, seed=0))
    assert [look.step for look in looks] == list(range(10, 81, 10))
    assert [look.over for look in looks] == [False] * 7 + [True]
    assert looks[-1].loss < 0.96 * looks[0].loss
    values = looks[-1].values(told)
    assert values.get("pretrain/perplexity") == (None if kind == "simcse" else pytest.approx(math.exp(looks[-1].loss)))


@pytest.mark.slow
def test_a_decoder_learns_what_follows(corpus):
    """Each word is one of two that may follow: about ln 2 nats; of 24 words without a context they are ln 24 = 3.2."""
    model, told = llama(), section(objective="clm", steps=150, batch=16)
    *_, last = pretrain(model, make_loss(model, corpus, told, "mean"), corpus, told, seed=0)
    assert math.log(2) * 0.9 < last.loss < 1.6


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", marked(["mlm", "simcse"], ["mlm"]))
def test_pre_training_goes_on_from_a_checkpoint_bit_by_bit(kind, corpus):
    told = section(objective=kind, steps=25)

    def trained(start=None, leave=None):
        model = bert()
        torch.manual_seed(0)
        objective = make_loss(model, corpus, told, "mean")
        if start is not None:
            torch.manual_seed(99)  # whatever went on in the other process
        for look in pretrain(model, objective, corpus, told, 5, start=start):
            if look.step == leave:
                return look.state()
        return model, look

    whole, last = trained()
    resumed, again = trained(start=trained(leave=10))
    assert torch.equal(weights(whole), weights(resumed))
    assert (last.loss, last.tokens, last.step) == (again.loss, again.tokens, again.step)


def test_the_budget_is_in_steps_tokens_or_minutes(corpus):
    def looks(**keys):
        model, told = Bag(), section(steps=None, **keys)
        return list(pretrain(model, make_loss(model, corpus, told, "mean"), corpus, told, 0))

    assert looks(tokens=24 * 8 * 30)[-1].tokens == 24 * 8 * 30
    assert looks(tokens=24 * 8 * 30)[-1].step == 30
    timed = looks(minutes=1 / 600, of="model")
    assert timed[-1].over and timed[-1].seconds >= 0.1
    assert all(not look.over and look.seconds < 0.1 for look in timed[:-1])
    for keys, words in (
        ({"steps": 3, "tokens": 9}, "expected one budget, but steps and tokens are given"),
        ({"minutes": 1}, "a budget in minutes is not reproducible"),
        ({"of": "model", "inherit": True}, "inherit applies to candidates"),
        ({"objective": "simcse", "batch": 1}, "batch: 2 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            PretrainingSection(**keys)


def test_only_what_is_not_frozen_learns_and_only_matrices_decay(corpus):
    model, told = bert(), section(weight_decay=0.5, steps=10)
    model.requires_grad_(False)
    model.encoder.layer[0].requires_grad_(True)
    before = {n: p.clone() for n, p in model.named_parameters()}
    list(pretrain(model, make_loss(model, corpus, told, "mean"), corpus, told, 0))
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(n.startswith("encoder.layer.0.") for n in moved)


def test_a_loss_that_is_no_number_says_so(corpus):
    model, told = bert(), section(lr=1e30)
    with pytest.raises(TrialError, match=r"the pre-training loss is nan at step 10.*lower pretraining\.lr"):
        list(pretrain(model, make_loss(model, corpus, told, "mean"), corpus, told, 0))


@pytest.mark.slow
def test_in_bf16_what_is_learned_stays_in_fp32(corpus):
    model, told = bert(), section(steps=40, batch=16)
    looks = list(pretrain(model, make_loss(model, corpus, told, "mean"), corpus, told, 0, Compute(precision="bf16")))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert looks[-1].loss < looks[0].loss
    exact = bert()
    plain = list(pretrain(exact, make_loss(exact, corpus, told, "mean"), corpus, told, 0))
    assert looks[-1].loss == pytest.approx(plain[-1].loss, rel=0.02) and looks[-1].loss != plain[-1].loss
