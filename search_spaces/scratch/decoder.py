"""Causal language models from scratch, on transformers' Llama and GPT-2 classes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nas_meta import Architecture, Choice
from nas_meta.errors import ConfigError
from search_spaces.scratch.base import FromScratch, FromScratchOptions
from search_spaces.scratch.encoder import unfit

if TYPE_CHECKING:
    from torch import nn


class DecoderOptions(FromScratchOptions):
    """Options of ``decoder``: the values that each choice may have."""

    family: list[Literal["llama", "gpt2"]] = Field(
        ["llama"],
        description="llama: RMSNorm, rotary positions, SwiGLU, no biases; gpt2: LayerNorm, learned positions, GELU",
    )
    depth: list[int] = Field([2, 4, 6], description="numbers of layers")
    width: list[int] = Field([128, 256], description="widths of a token's state")
    heads: list[int] = Field([4, 8], description="numbers of attention heads; divisors of the width")
    kv_heads: list[int] = Field([1, 2, 4], description="numbers of key-value heads of llama; divisors of the heads")
    ffn: list[float] = Field([1.0, 2.0, 4.0], description="widths of the feed-forward, as shares of the width")
    tied: list[bool] = Field(
        [True, False], description="whether the language model's head is the table of tokens; matters to pre-training"
    )


class ScratchDecoder(FromScratch):
    """Causal language models from scratch: depth, width, heads, key-value heads, feed-forward, tied embeddings.

    An embedding is the pooled states of a text's tokens (``tasks.pooling``: mean or last). The model's ``lm`` is the
    language model with its head, whose parameters count though embeddings do not go through it.
    """

    Options = DecoderOptions

    def __init__(self, options: DecoderOptions | None = None):
        super().__init__(options)
        self.refuse_below_one("depth", "width", "heads", "kv_heads")
        wrong = [share for share in self.options.ffn if share <= 0]
        if wrong:
            raise ConfigError(f"space.ffn has {wrong[0]}; expected shares above 0")
        if not self._sizes():
            raise ConfigError(
                "space.heads has no divisor of a width in space.width with a divisor in space.kv_heads; expected one"
            )

    def choices(self) -> Mapping[str, Choice]:
        o = self.options
        table = {name: Choice(tuple(getattr(o, name))) for name in ("family", "depth", "width", "heads", "ffn", "tied")}
        return {**table, "kv_heads": Choice(tuple(o.kv_heads), when={"family": "llama"})}

    def problem(self, architecture: Architecture) -> str | None:
        return misfit(architecture["width"], architecture["heads"], architecture.values.get("kv_heads"))

    def size(self) -> int:
        """Exact."""
        o = self.options
        return self._sizes() * len(o.depth) * len(o.ffn) * len(o.tied)

    def build(self, architecture: Architecture) -> nn.Module:
        from transformers import AutoModelForCausalLM

        from search_spaces.pretrained.causal_lm import CausalStates

        return CausalStates(AutoModelForCausalLM.from_config(self.config(architecture)))

    def config(self, architecture: Architecture) -> Any:
        """transformers' configuration of an architecture."""
        from transformers import GPT2Config, LlamaConfig

        o, (tokens, pad) = self.options, self.vocabulary
        shared = {
            "vocab_size": tokens, "pad_token_id": pad, "bos_token_id": None, "eos_token_id": None,
            "tie_word_embeddings": architecture["tied"],
        }  # fmt: skip
        if architecture["family"] == "gpt2":
            return GPT2Config(
                **shared,
                n_layer=architecture["depth"],
                n_embd=architecture["width"],
                n_head=architecture["heads"],
                n_inner=self.neurons(architecture),
                n_positions=o.max_positions,
                embd_pdrop=o.dropout,
                attn_pdrop=o.dropout,
                resid_pdrop=o.dropout,
            )
        return LlamaConfig(
            **shared,
            num_hidden_layers=architecture["depth"],
            hidden_size=architecture["width"],
            num_attention_heads=architecture["heads"],
            num_key_value_heads=architecture["kv_heads"],
            intermediate_size=self.neurons(architecture),
            max_position_embeddings=o.max_positions,
            attention_dropout=o.dropout,
        )

    def neurons(self, architecture: Architecture) -> int:
        """The width of the feed-forward."""
        return max(1, round(architecture["ffn"] * architecture["width"]))

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Parameters, and FLOPs: 2 · tokens · (weights of every projection) + 4 · tokens² · width a layer."""
        d, width, neurons = architecture["depth"], architecture["width"], self.neurons(architecture)
        vocabulary = self.vocabulary[0]
        params = vocabulary * width * (1 if architecture["tied"] else 2)
        if architecture["family"] == "gpt2":
            matrices = 4 * width**2 + 2 * width * neurons
            biases = 4 * width + neurons + width
            params += self.options.max_positions * width + d * (matrices + biases + 4 * width) + 2 * width
        else:
            keys = architecture["kv_heads"] * (width // architecture["heads"])
            matrices = 2 * width**2 + 2 * width * keys + 3 * width * neurons
            params += d * (matrices + 2 * width) + width
        return {"params": params, "flops": d * (2 * tokens * matrices + 4 * tokens**2 * width)}

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """A folder of transformers' own class with its head.

        ``AutoModel.from_pretrained(folder)`` loads what gives the states, ``AutoModelForCausalLM`` all of it.
        """
        model.lm.save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        """The language model in a folder, giving states."""
        from transformers import AutoModelForCausalLM

        from search_spaces.pretrained.causal_lm import CausalStates

        return CausalStates(AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False))

    def _sizes(self) -> int:
        """How many combinations of family, width, heads and key-value heads fit each other."""
        o = self.options
        return sum(
            misfit(width, heads, kv) is None
            for family, width, heads in product(o.family, o.width, o.heads)
            for kv in (o.kv_heads if family == "llama" else [None])
        )


def misfit(width: int, heads: int, kv_heads: int | None) -> str | None:
    """Why these do not fit each other, as a clause; GPT-2 has no key-value heads of their own (None)."""
    if kv_heads is not None and heads % kv_heads:
        return f"{kv_heads} key-value heads do not divide {heads} heads"
    return unfit(width, heads, rotary=kv_heads is not None)
