"""Conversion of models of ``encoder`` to equivalent classes of transformers, for exports without custom code.

=========================================================================== ==============
post-norm, LayerNorm, learned positions, GELU, full attention               ``BertModel``
pre-norm, LayerNorm, rotary positions, SwiGLU, full or sliding attention    ``ModernBertModel``
pre-norm, RMSNorm, rotary positions, SwiGLU, full attention                 ``EuroBertModel``
=========================================================================== ==============

The conversion is possible if all layers have the same width and the pooling has no weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    EuroBertConfig,
    EuroBertModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
)

from search_spaces.scratch.encoder_model import EncoderConfig, EncoderModel

# Module names of EncoderModel and their names in transformers; the tables named _ENDS are those outside the layers.
BERT = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
BERT_ENDS = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "norm": "embeddings.LayerNorm",
}
EUROBERT = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "ffn.gate": "mlp.gate_proj",
    "ffn.up": "mlp.up_proj",
    "ffn.down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
EUROBERT_ENDS = {"words": "embed_tokens", "last_norm": "norm"}
MODERNBERT = {
    "attention.out": "attn.Wo",
    "attention_norm": "attn_norm",
    "ffn.down": "mlp.Wo",
    "ffn_norm": "mlp_norm",
}
MODERNBERT_ENDS = {"words": "embeddings.tok_embeddings", "norm": "embeddings.norm", "last_norm": "final_norm"}
# ModernBERT stacks these matrices into one, in this order.
MODERNBERT_JOINED = {
    "attn.Wqkv": ("attention.query", "attention.key", "attention.value"),
    "mlp.Wi": ("ffn.gate", "ffn.up"),
}


def as_native(model: EncoderModel) -> PreTrainedModel | None:
    """Convert a model to a class of transformers with the same outputs.

    Args:
        model: A model of the search space ``encoder``; it is not changed.

    Returns:
        A ``BertModel``, ``ModernBertModel`` or ``EuroBertModel`` in evaluation mode with copied weights, or None if
        no class of transformers computes the same function.
    """
    config = model.config
    if len(set(config.intermediate_sizes)) != 1 or config.pooling == "attention":
        return None
    kind = (config.norm_place, config.norm, config.positions, config.activation)
    full = config.sliding_window is None
    if kind == ("post", "layer", "learned", "gelu") and full:
        native, layers, modules, ends, joined = _bert(config), "encoder.layer", BERT, BERT_ENDS, {}
    elif kind == ("pre", "rms", "rotary", "swiglu") and full:
        native, layers, modules, ends, joined = _eurobert(config), "layers", EUROBERT, EUROBERT_ENDS, {}
    elif kind == ("pre", "layer", "rotary", "swiglu"):
        native, layers, modules, ends = _modernbert(config), "layers", MODERNBERT, MODERNBERT_ENDS
        joined = MODERNBERT_JOINED
    else:
        return None
    state = model.state_dict()
    native_state = _renamed(state, ends, "", "")
    for i in range(config.num_hidden_layers):
        source, target = f"layers.{i}.", f"{layers}.{i}."
        native_state |= _renamed(state, modules, source, target)
        for name, parts in joined.items():
            for kind in ("weight", "bias"):
                native_state[f"{target}{name}.{kind}"] = torch.cat([state[f"{source}{part}.{kind}"] for part in parts])
    if isinstance(native, BertModel):  # BERT adds an embedding of the segment, which is zero here
        native_state["embeddings.token_type_embeddings.weight"] = torch.zeros(1, config.hidden_size)
    native.load_state_dict(native_state)
    return native.to(model.dtype).eval()


def _renamed(state: Mapping[str, Tensor], modules: Mapping[str, str], source: str, target: str) -> dict[str, Tensor]:
    """Return the parameters of modules under their names in transformers; the prefixes name the layer."""
    return {
        f"{target}{native_name}.{kind}": state[f"{source}{name}.{kind}"]
        for name, native_name in modules.items()
        for kind in ("weight", "bias")
        if f"{source}{name}.{kind}" in state
    }


def _sizes(config: EncoderConfig) -> dict[str, int]:
    """Return the sizes under the names that all three configs of transformers share."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_sizes[0],
        "max_position_embeddings": config.max_position_embeddings,
        "initializer_range": config.initializer_range,
        "pad_token_id": config.pad_token_id,
    }


def _bert(config: EncoderConfig) -> BertModel:
    """Create a BERT of the same sizes."""
    dropout = {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.dropout}
    native_config = BertConfig(**_sizes(config), **dropout, layer_norm_eps=config.norm_eps, type_vocab_size=1)
    return BertModel(native_config, add_pooling_layer=False)


def _eurobert(config: EncoderConfig) -> EuroBertModel:
    """Create a EuroBERT of the same sizes."""
    native_config = EuroBertConfig(
        **_sizes(config),
        **_no_special_tokens(EuroBertConfig),
        attention_bias=True,
        mlp_bias=True,
        attention_dropout=config.dropout,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
    )
    return EuroBertModel(native_config)


def _modernbert(config: EncoderConfig) -> ModernBertModel:
    """Create a ModernBERT of the same sizes."""
    kind = "full_attention" if config.sliding_window is None else "sliding_attention"
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    native_config = ModernBertConfig(
        **_sizes(config),
        **_no_special_tokens(ModernBertConfig),
        hidden_activation="silu",
        attention_bias=True,
        mlp_bias=True,
        norm_bias=True,
        norm_eps=config.norm_eps,
        layer_types=[kind] * config.num_hidden_layers,
        local_attention=2 * (config.sliding_window or config.max_position_embeddings),
        rope_parameters={"full_attention": rope, "sliding_attention": dict(rope)},
        embedding_dropout=config.dropout,
        attention_dropout=config.dropout,
        mlp_dropout=config.dropout,
    )
    return ModernBertModel(native_config)


def _no_special_tokens(config: type) -> dict[str, None]:
    """Return None for the special tokens that a config sets by default; they belong to another vocabulary."""
    names = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    return dict.fromkeys(name for name in names if hasattr(config, name))
