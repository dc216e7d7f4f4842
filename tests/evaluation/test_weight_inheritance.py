"""Weights of one architecture as the start of another: what is copied, and from whom."""

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel, LlamaConfig, LlamaModel

from nas_meta import Architecture
from nas_meta.evaluation.pretraining.weight_inheritance import (
    distance,
    inherit,
    match_names,
    name_of_table,
    nearest,
)
from nas_meta.space.architecture import Choice


def test_leading_slices_are_inherited_and_the_rest_stays():
    torch.manual_seed(0)
    sizes = {"vocab_size": 29, "max_position_embeddings": 64, "num_attention_heads": 2}
    small = BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, intermediate_size=24, **sizes))
    large = BertModel(BertConfig(hidden_size=32, num_hidden_layers=2, intermediate_size=20, **sizes))
    before = {n: t.clone() for n, t in large.state_dict().items()}
    share = inherit(large, small.state_dict())
    copied = 0
    for name, tensor in large.state_dict().items():
        own = small.state_dict().get(name)
        expected = before[name]
        if own is not None:
            part = tuple(slice(min(a, b)) for a, b in zip(own.shape, tensor.shape, strict=True))
            expected[part] = own[part]
            copied += own[part].numel()
        assert torch.equal(tensor, expected), name
    assert share == pytest.approx(copied / sum(t.numel() for t in before.values()))
    assert 0.1 < share < 0.6


def test_the_nearest_is_told_by_ranks_of_numbers_and_equality_of_the_rest():
    table = {"width": Choice([64, 512, 128]), "norm": Choice(["pre", "post"]), "extra": Choice([1, 2], {"norm": "pre"})}

    def at(**values):
        return Architecture(values)

    one = at(width=64, norm="pre", extra=1)
    assert distance(one, one, table) == 0
    assert distance(one, at(width=128, norm="pre", extra=1), table) == 0.5
    assert distance(one, at(width=512, norm="post"), table) == 3
    assert distance(at(width=512, norm="post"), one, table) == 3
    others = [at(width=width, norm="pre", extra=1) for width in (512, 128, 128)]
    assert nearest(one, others, table) == 1
    assert nearest(one, [], table) is None


def test_of_another_class_parts_are_told_by_how_their_names_end(tiny_model):
    bert = AutoModel.from_pretrained(tiny_model)
    wrapped = torch.nn.Module()
    wrapped.inner = BertModel(bert.config)
    found = match_names(wrapped, bert.state_dict(), None)
    assert set(found) == set(wrapped.state_dict()) and inherit(wrapped, found) == 1
    llama = LlamaModel(LlamaConfig(vocab_size=29, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    found = match_names(llama, bert.state_dict(), name_of_table(bert))
    assert set(found) == {"embed_tokens.weight"}
    inherit(llama, found)
    assert torch.equal(llama.embed_tokens.weight, bert.embeddings.word_embeddings.weight[:, :16])
