"""A tiny pretrained model of every family in the table of families, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from nas_meta.models.families import FAMILIES

H, HEADS, F, L, V, P = 32, 4, 48, 3, 40, 64
SHAPE = {"vocab_size": V, "hidden_size": H, "num_hidden_layers": L, "num_attention_heads": HEADS,
         "intermediate_size": F, "max_position_embeddings": P, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2}  # fmt: skip
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
DEBERTA = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0,
           "norm_rel_ebd": "layer_norm", "position_biased_input": False}  # fmt: skip
OTHERS = {
    "deberta-v2": ("deberta-v2", DEBERTA | {"share_att_key": True}),  # as DeBERTa-v3
    "deberta-v2-separate": ("deberta-v2", DEBERTA),
    "electra": ("electra", {"embedding_size": 16}),
    "rembert": ("rembert", {"input_embedding_size": 16}),
    "roformer": ("roformer", {"embedding_size": 16}),
    "modernbert": ("modernbert", {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 4}),
    "gpt2": ("gpt2", {"n_inner": F}),
    "opt": ("opt", {"ffn_dim": F, "word_embed_proj_dim": 16}),
    "llama": ("llama", GROUPED),
    "mistral": ("mistral", GROUPED | {"sliding_window": 3}),
    "qwen2": ("qwen2", GROUPED),
    "qwen3": ("qwen3", GROUPED),
    "gemma": ("gemma", GROUPED),
    "gemma2": ("gemma2", GROUPED | {"sliding_window": 3}),
    "gemma3_text": ("gemma3_text", GROUPED | {"sliding_window": 3, "layer_types": [
        "sliding_attention", "full_attention", "sliding_attention"]}),
}  # fmt: skip
"""Families whose tiny model needs further sizes, and second models of a family: ``model_type`` and config."""
MODELS = {name: (name, {}) for name in FAMILIES} | OTHERS
ENCODERS = [name for name, (kind, _) in MODELS.items() if not FAMILIES[kind].causal]
DECODERS = [name for name, (kind, _) in MODELS.items() if FAMILIES[kind].causal]


def tiny_model(name: str):
    """Return a model with random weights, biases and norms included, so that no mistake is hidden by zeros.

    Args:
        name: A key of ``MODELS``.
    """
    kind, changes = MODELS[name]
    shape = SHAPE | changes
    if kind == "distilbert":
        shape = {"vocab_size": V, "dim": H, "n_layers": L, "n_heads": HEADS, "hidden_dim": F}
    config = AutoConfig.for_model(kind, **shape)
    torch.manual_seed(1)
    model = (AutoModelForCausalLM if FAMILIES[kind].causal else AutoModel).from_config(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def save_family(name: str, folder: Path):
    """Save a tiny model as a pretrained one.

    Args:
        name: A key of ``MODELS``.
        folder: Folder for the model.

    Returns:
        The model.
    """
    model = tiny_model(name)
    model.save_pretrained(folder)
    return model
