"""Families of pretrained transformers: where each keeps its layers, heads, feed-forward neurons and their sizes.

A row of :data:`FAMILIES` is all that search spaces and adapters know about a family. To add one, add a row; the
conformance test ``tests/search_spaces/test_families.py`` then covers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nas_meta.errors import ConfigError

HEAD, GROUP, NEURON = "head", "group", "neuron"
"""Units of a layer: a query head, a key-value head shared by a group of query heads, a feed-forward neuron."""


@dataclass(frozen=True)
class Projection:
    """Which outputs of a projection belong to which unit of its layer.

    The outputs are ``blocks`` blocks, one after the other. In each block every unit owns ``share`` consecutive outputs,
    counted in head sizes for heads and groups. For example, query, key and value of two heads in one projection are
    ``q0 q1 k0 k1 v0 v1`` with three blocks, and ``q0 k0 v0 q1 k1 v1`` with one block and a share of 3.

    Attributes:
        path: Path of the projection in its layer. A layer may lack it, as some models have options without it.
        unit: ``head``, ``group`` or ``neuron``.
        blocks: Number of blocks.
        share: Outputs of a unit in a block.
        positions: Whether the inputs are embeddings of relative positions instead of token states.
    """

    path: str
    unit: str
    blocks: int = 1
    share: int = 1
    positions: bool = False


@dataclass(frozen=True)
class Family:
    """Where the models of a family keep their layers and units. Paths are relative to a layer unless stated otherwise.

    Attributes:
        layers: Path of the list of layers in the base model.
        attention: Path of the attention module.
        inward: Projections from states to units, by role: ``query``, ``key``, ``value`` or all in one ``qkv``; ``up``,
            and ``gate`` of a gated block if it is a projection of its own; other names for further ones.
        outward: Path of the projection of the attention output. A query head owns ``head_size`` consecutive inputs.
        down: Path of the second feed-forward projection. A neuron owns one input.
        head_size: Path of the attribute with the width of a head.
        sizes: Attributes that must agree with the number of units, by path: ``heads``, ``width`` (of all heads),
            ``group_heads`` (query heads per group) or ``neurons``.
        head_bias: Argument of the attention module that is shared by all layers and has an entry for each head in
            dimension 1; None if there is none.
        relative: Path of a disentangled attention module (DeBERTa), which also scores relative positions; None if the
            family has none.
        returns_tuple: Whether a layer returns a tuple whose first element are the states.
        causal: Whether the models are causal language models.
        neurons_key: Config key of the number of neurons.
        head_keys: Whether the config can express fewer heads of the same size.
        refused: For a config key that, if set, makes layers depend on their place, the reason as a clause.
    """

    layers: str
    attention: str
    inward: Mapping[str, Projection]
    outward: str
    down: str
    head_size: str
    sizes: Mapping[str, str] = field(default_factory=dict)
    head_bias: str | None = None
    relative: str | None = None
    returns_tuple: bool = False
    causal: bool = False
    neurons_key: str = "intermediate_size"
    head_keys: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)


def separate(query: str, key: str, value: str, **others: Projection) -> dict[str, Projection]:
    """Describe query, key and value in projections of their own.

    Args:
        query: Path of the query projection.
        key: Path of the key projection.
        value: Path of the value projection.
        **others: Further projections by role.

    Returns:
        Projections by role.
    """
    return {
        "query": Projection(query, HEAD), "key": Projection(key, GROUP), "value": Projection(value, GROUP), **others
    }  # fmt: skip


BERT = Family(
    layers="encoder.layer",
    attention="attention.self",
    inward=separate(
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        up=Projection("intermediate.dense", NEURON),
    ),
    outward="attention.output.dense",
    down="output.dense",
    head_size="attention.self.attention_head_size",
    sizes={"attention.self.num_attention_heads": "heads", "attention.self.all_head_size": "width"},
)
BERT_WITH_TUPLES = replace(BERT, returns_tuple=True)
DISTILBERT = Family(
    layers="transformer.layer",
    attention="attention",
    inward=separate("attention.q_lin", "attention.k_lin", "attention.v_lin", up=Projection("ffn.lin1", NEURON)),
    outward="attention.out_lin",
    down="ffn.lin2",
    head_size="attention.attention_head_size",
    sizes={"attention.n_heads": "heads", "attention.dim": "width"},
    neurons_key="hidden_dim",
)
MPNET = Family(
    layers="encoder.layer",
    attention="attention.attn",
    inward=separate(
        "attention.attn.q", "attention.attn.k", "attention.attn.v", up=Projection("intermediate.dense", NEURON)
    ),
    outward="attention.attn.o",
    down="output.dense",
    head_size="attention.attn.attention_head_size",
    sizes={"attention.attn.num_attention_heads": "heads", "attention.attn.all_head_size": "width"},
    head_bias="position_bias",
    returns_tuple=True,
)
DEBERTA_V2 = replace(
    BERT_WITH_TUPLES,
    inward=separate(
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
        position_key=Projection("attention.self.pos_key_proj", HEAD, positions=True),
        position_query=Projection("attention.self.pos_query_proj", HEAD, positions=True),
        up=Projection("intermediate.dense", NEURON),
    ),
    relative="attention.self",
    refused={"conv_kernel_size": "has a convolution after its first layer, which no other layer can replace"},
)
MODERNBERT = Family(
    layers="layers",
    attention="attn",
    inward={"qkv": Projection("attn.Wqkv", HEAD, blocks=3), "up": Projection("mlp.Wi", NEURON, blocks=2)},
    outward="attn.Wo",
    down="mlp.Wo",
    head_size="attn.head_dim",
)
LLAMA = Family(
    layers="layers",
    attention="self_attn",
    inward=separate(
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        gate=Projection("mlp.gate_proj", NEURON),
        up=Projection("mlp.up_proj", NEURON),
    ),
    outward="self_attn.o_proj",
    down="mlp.down_proj",
    head_size="self_attn.head_dim",
    sizes={"self_attn.num_key_value_groups": "group_heads", "mlp.intermediate_size": "neurons"},
    causal=True,
    head_keys=True,
)
GPT2 = Family(
    layers="h",
    attention="attn",
    inward={"qkv": Projection("attn.c_attn", HEAD, blocks=3), "up": Projection("mlp.c_fc", NEURON)},
    outward="attn.c_proj",
    down="mlp.c_proj",
    head_size="attn.head_dim",
    sizes={"attn.num_heads": "heads", "attn.split_size": "width"},
    causal=True,
    neurons_key="n_inner",
    refused={"scale_attn_by_inverse_layer_idx": "scales attention by the layer index"},
)
GPT_NEOX = Family(
    layers="layers",
    attention="attention",
    inward={
        "qkv": Projection("attention.query_key_value", HEAD, share=3), "up": Projection("mlp.dense_h_to_4h", NEURON)
    },
    outward="attention.dense",
    down="mlp.dense_4h_to_h",
    head_size="attention.head_size",
    causal=True,
)  # fmt: skip
OPT = Family(
    layers="decoder.layers",
    attention="self_attn",
    inward=separate("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", up=Projection("fc1", NEURON)),
    outward="self_attn.out_proj",
    down="fc2",
    head_size="self_attn.head_dim",
    sizes={"self_attn.num_heads": "heads"},
    causal=True,
    neurons_key="ffn_dim",
)

FAMILIES: Mapping[str, Family] = {
    "bert": BERT, "roberta": BERT, "xlm-roberta": BERT, "camembert": BERT, "electra": BERT, "ernie": BERT,
    "data2vec-text": BERT, "distilbert": DISTILBERT, "mpnet": MPNET, "deberta-v2": DEBERTA_V2,
    "modernbert": MODERNBERT, "roformer": BERT_WITH_TUPLES, "rembert": BERT_WITH_TUPLES,
    "megatron-bert": BERT_WITH_TUPLES, "xlm-roberta-xl": BERT, "roberta-prelayernorm": BERT, "layoutlm": BERT,
    "splinter": BERT,
    "gpt2": GPT2, "llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "gemma": LLAMA, "gemma2": LLAMA,
    "gemma3_text": LLAMA, "gpt_neox": GPT_NEOX, "opt": OPT,
}  # fmt: skip
"""Families by the ``model_type`` of their config."""


def family_of(config: Any) -> Family | None:
    """Return the family of a model.

    Args:
        config: The transformers config of the model; other objects belong to no family.

    Returns:
        The family, or None if the table has no row for it.
    """
    name = getattr(config, "model_type", None)
    return FAMILIES.get(name) if isinstance(name, str) else None


def check_family(config: Any, subject: str, causal: bool = False) -> Family:
    """Return the family of a config.

    Args:
        config: Config of a model, from transformers.
        subject: The beginning of the error message, such as ``space.model is a T5Model``.
        causal: Whether a causal language model is expected rather than an encoder.

    Returns:
        The row of the config in :data:`FAMILIES`.

    Raises:
        ConfigError: The model belongs to another family, or one of its settings ties layers to their place.
    """
    family = family_of(config)
    if family is None or family.causal != causal:
        raise ConfigError(f"{subject}; expected one of {names_of(causal)}")
    for key, reason in family.refused.items():
        if getattr(config, key, None):
            raise ConfigError(
                f"space.model {reason} ({key}), so its layers cannot be removed; expected a model without this setting"
            )
    return family


def names_of(causal: bool) -> str:
    """Return the families for an error message, such as ``bert, roberta or mpnet``.

    Args:
        causal: Whether to list causal language models instead of encoders.
    """
    *names, last = [name for name, family in FAMILIES.items() if family.causal == causal]
    return f"{', '.join(names)} or {last}"
