"""Tiny causal language models of every supported family, with a byte-level tokenizer like theirs."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)  # fmt: skip

H, GROUPS, SHARED, SIZE, F, L = 48, 2, 3, 8, 48, 3
FAMILIES = ("gpt2", "llama", "untied", "qwen2", "qwen3")


def tiny_tokenizer(texts: list[str], size: int = 300) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer.

    Args:
        texts: Texts to train on.
        size: Largest size of the vocabulary.

    Returns:
        The tokenizer. Token 0 is padding, 1 begins and 2 ends a text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def tiny_causal(family: str, vocabulary: int = 40, positions: int = 40, hidden: int = H):
    """Return a causal language model with random weights.

    Args:
        family: One of ``FAMILIES``; ``untied`` is a Llama whose output projection is separate from the embeddings.
        vocabulary: Number of tokens.
        positions: Longest text, in tokens.
        hidden: Width of the states.

    Returns:
        The model.
    """
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": L,
        "max_position_embeddings": positions,
    }
    grouped = shape | {
        "num_attention_heads": GROUPS * SHARED, "num_key_value_heads": GROUPS, "head_dim": SIZE, "intermediate_size": F,
        "tie_word_embeddings": family != "untied", "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    model = {
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(**shape, num_attention_heads=6, n_inner=F, pad_token_id=0, bos_token_id=1, eos_token_id=2)
        ),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**grouped, attention_bias=True)),
        "untied": lambda: LlamaForCausalLM(LlamaConfig(**grouped)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**grouped)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**grouped)),
    }[family]()  # fmt: skip
    for p in model.parameters():  # biases are initialised to zero, which would hide mistakes
        torch.nn.init.normal_(p, std=0.3)
    return model


def save_tiny(family: str, folder: Path, texts: list[str] | None = None, positions: int = 40):
    """Save a tiny model as a pretrained one.

    Args:
        family: One of ``FAMILIES``.
        folder: Folder for the model.
        texts: Texts to train a tokenizer on, which is saved with the model; by default there is no tokenizer.
        positions: Longest text, in tokens.

    Returns:
        The model as transformers loads it from the folder.
    """
    torch.manual_seed(1)
    vocabulary = 40
    if texts is not None:
        tokenizer = tiny_tokenizer(texts)
        tokenizer.save_pretrained(folder)
        vocabulary = len(tokenizer)
    tiny_causal(family, vocabulary, positions).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()
