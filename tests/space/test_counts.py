"""What spaces over pretrained encoders count before a build, for ten architectures each, against counts by hand."""

import numpy as np
import pytest

from nas_meta.models.profiling import flops, parameters
from nas_meta.tasks.sources.files import JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer
from search_spaces.cell.cell_encoder import CellEncoder, CellEncoderOptions
from search_spaces.pretrained.bert_subnet import BertSubnet, BertSubnetOptions
from search_spaces.pretrained.peft_bert import PeftBert, PeftBertOptions

V, P, H, HEADS, N = 29, 64, 32, 4, 64  # of the tiny BERT: tokens, positions, width, heads, neurons
T = 9
TABLES = (V + P) * H
TYPES, NORM = 2 * H, 2 * H
POOLER = (H * H + H, 2 * H * H)  # it sees one token
ATTENTION = (4 * (H * H + H) + NORM, 2 * T * 4 * H * H + 2 * (2 * T * T * H))


def layer_of_bert(heads, neurons):
    """Parameters and FLOPs of a layer with so many heads of its four, and neurons."""
    width = heads * H // HEADS
    weights = 4 * H * width + 2 * H * neurons
    biases = 3 * width + H + neurons + H
    return weights + biases + 2 * NORM, 2 * T * weights + 2 * (2 * T * T * width)


def bert_subnet(a):
    kept = [i for i in (0, 1) if a[f"layer{i}.keep"]]
    return [(TABLES + TYPES + NORM, 0), POOLER] + [
        layer_of_bert(a[f"layer{i}.heads"], a[f"layer{i}.ffn"]) for i in kept
    ]


def peft_bert(a):
    parts = [(TABLES + TYPES + NORM, 0), POOLER, layer_of_bert(HEADS, N), layer_of_bert(HEADS, N)]
    for i in (0, 1):
        kind, rank, on = (a.values.get(f"layer{i}.{name}") for name in ("part", "rank", "on"))
        if kind == "adapter":
            parts.append((2 * rank * H + rank, 2 * T * 2 * rank * H))  # a bias for each neuron
        on_attention, on_ffn = on in ("attention", "both"), on in ("ffn", "both")
        if kind == "lora" and on_attention:
            parts += [(rank * (H + H), 2 * T * rank * (H + H))] * 2  # query and value
        if kind == "lora" and on_ffn:
            parts += [(rank * (H + N), 2 * T * rank * (H + N))] * 2  # up and down
        if kind == "ia3":
            parts += [(H, 0)] * 2 * on_attention + [(N, 0)] * on_ffn  # vectors: no matrix product
    return parts


def cell_encoder(a):
    of = {
        "identity": (0, 0),
        "attention-4": ATTENTION,
        "convolution-3": (NORM + (3 * H + H) + (H * H + H), 2 * T * 3 * H + 2 * T * H * H),
        "gated-mlp-2": (NORM + 2 * (H * 64 + 64) + (64 * H + H), 2 * T * 3 * H * 64),
        "feed-forward-4": (NORM + (H * 128 + 128) + (128 * H + H), 2 * T * 2 * H * 128),
    }
    return [(TABLES + NORM + NORM, 0), *(of[a[f"layer{i}.op"]] for i in range(3))]


SPACES = {
    "bert-subnet": (
        lambda model: BertSubnet(BertSubnetOptions(model=model, heads=[1.0, 0.5], ffn=[1.0, 0.5, 0.25])),
        bert_subnet,
    ),
    "peft-bert": (lambda model: PeftBert(PeftBertOptions(model=model, ranks=[2, 5])), peft_bert),
    "cell-encoder": (
        lambda model: CellEncoder(
            CellEncoderOptions(model=model, layers=3, heads=[4], kernels=[3], gated=[2.0], ffn=[4.0])
        ),
        cell_encoder,
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_counts_of_ten_architectures_equal_a_count_by_hand_and_the_built_model(name, tiny_model, labelled_texts):
    make, parts_of = SPACES[name]
    space = make(str(tiny_model))
    tasks = load_tasks(JSONLines(JSONLines.Options(path=labelled_texts)), load_tokenizer(str(tiny_model)), 16)
    space.prepare(tasks, 0)
    rng = np.random.default_rng(1)
    for _ in range(10):
        a = space.sample(rng)
        params, operations = map(sum, zip(*parts_of(a), strict=True))
        model = space.build(a)
        assert space.counts(a, T) == {"params": params, "flops": operations}
        assert (parameters(model), flops(model, T)) == (params, operations)
