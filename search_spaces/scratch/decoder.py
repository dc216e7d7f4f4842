"""Search space ``decoder``: causal language models from scratch, built on the Llama and GPT-2 of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from nas_meta import Architecture, Choice
from nas_meta.errors import ConfigError
from search_spaces.scratch.base import FromScratch, FromScratchOptions
from search_spaces.scratch.encoder import heads_problem

if TYPE_CHECKING:
    from torch import nn


class DecoderOptions(FromScratchOptions):
    """Options of the search space ``decoder``: the values of each choice."""

    family: list[Literal["llama", "gpt2"]] = Field(
        ["llama"],
        description="candidate model families; llama: RMSNorm, rotary positions, SwiGLU, no biases; "
        "gpt2: LayerNorm, learned positions, GELU",
    )
    depth: list[int] = Field([2, 4, 6], description="candidate numbers of layers")
    width: list[int] = Field([128, 256], description="candidate widths of a token state")
    heads: list[int] = Field(
        [4, 8], description="candidate numbers of attention heads; only divisors of the width are used"
    )
    kv_heads: list[int] = Field(
        [1, 2, 4], description="candidate numbers of key-value heads of llama; only divisors of the heads are used"
    )
    ffn: list[float] = Field(
        [1.0, 2.0, 4.0], description="candidate widths of the feed-forward, as multiples of the width"
    )
    tied: list[bool] = Field(
        [True, False],
        description="whether the output layer shares its weights with the token embeddings; matters for pre-training",
    )


class ScratchDecoder(FromScratch):
    """Causal language models from scratch: depth, width, heads, key-value heads, feed-forward, tied embeddings.

    The embedding of a text is its pooled token states (``tasks.pooling``: mean or last). The attribute ``lm`` of a
    model is the language model with its output layer, which counts as parameters although embeddings do not use it.

    Args:
        options: Values of the choices; the defaults of ``DecoderOptions`` if None.

    Raises:
        ConfigError: An option has an invalid value, or no sizes fit together.
    """

    Options = DecoderOptions

    def __init__(self, options: DecoderOptions | None = None):
        super().__init__(options)
        self.require_positive("depth", "width", "heads", "kv_heads")
        wrong = [multiple for multiple in self.options.ffn if multiple <= 0]
        if wrong:
            raise ConfigError(f"space.ffn has {wrong[0]}; expected multiples above 0")
        if not self._sizes():
            raise ConfigError(
                "space.width, space.heads and space.kv_heads do not fit together; expected heads that divide a width "
                "and, for llama, give heads of even width and are divisible by a number in space.kv_heads"
            )

    def choices(self) -> Mapping[str, Choice]:
        o = self.options
        table = {name: Choice(tuple(getattr(o, name))) for name in ("family", "depth", "width", "heads", "ffn", "tied")}
        return {**table, "kv_heads": Choice(tuple(o.kv_heads), when={"family": "llama"})}

    def problem(self, architecture: Architecture) -> str | None:
        return sizes_problem(architecture["width"], architecture["heads"], architecture.values.get("kv_heads"))

    def size(self) -> int:
        """Return the exact number of architectures."""
        o = self.options
        return self._sizes() * len(o.depth) * len(o.ffn) * len(o.tied)

    def build(self, architecture: Architecture) -> nn.Module:
        from transformers import AutoModelForCausalLM

        from search_spaces.pretrained.causal_lm import CausalStates

        return CausalStates(AutoModelForCausalLM.from_config(self.config(architecture)))

    def config(self, architecture: Architecture) -> Any:
        """Return the transformers configuration of an architecture.

        Args:
            architecture: An architecture of the space.

        Returns:
            A ``LlamaConfig`` or a ``GPT2Config``.
        """
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
        """Return the number of feed-forward neurons of each layer.

        Args:
            architecture: An architecture of the space.

        Returns:
            Number of neurons, at least 1.
        """
        return max(1, round(architecture["ffn"] * architecture["width"]))

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Count parameters and FLOPs from the sizes alone.

        FLOPs per layer are 2 · tokens · (weights of every projection) + 4 · tokens² · width.
        """
        d, width, neurons = architecture["depth"], architecture["width"], self.neurons(architecture)
        vocabulary = self.vocabulary[0]
        params = vocabulary * width * (1 if architecture["tied"] else 2)
        if architecture["family"] == "gpt2":
            matrices = 4 * width**2 + 2 * width * neurons
            biases = 4 * width + neurons + width
            params += self.options.max_positions * width + d * (matrices + biases + 4 * width) + 2 * width
        else:
            kv_width = architecture["kv_heads"] * (width // architecture["heads"])
            matrices = 2 * width**2 + 2 * width * kv_width + 3 * width * neurons
            params += d * (matrices + 2 * width) + width
        return {"params": params, "flops": d * (2 * tokens * matrices + 4 * tokens**2 * width)}

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Write a standard transformers folder of the language model with its output layer.

        ``AutoModel.from_pretrained(folder)`` loads the part that returns token states, ``AutoModelForCausalLM`` the
        whole model.
        """
        model.lm.save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        """Load the causal language model of a folder as a model that returns token states."""
        from transformers import AutoModelForCausalLM

        from search_spaces.pretrained.causal_lm import CausalStates

        return CausalStates(AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, dtype="float32"))

    def _sizes(self) -> int:
        """Return the number of valid combinations of family, width, heads and key-value heads."""
        o = self.options
        return sum(
            sizes_problem(width, heads, kv) is None
            for family, width, heads in product(o.family, o.width, o.heads)
            for kv in (o.kv_heads if family == "llama" else [None])
        )


def sizes_problem(width: int, heads: int, kv_heads: int | None) -> str | None:
    """Explain why the sizes of a decoder do not fit together.

    Args:
        width: Width of a token state.
        heads: Number of attention heads.
        kv_heads: Number of key-value heads of Llama; None for GPT-2, which has no separate ones.

    Returns:
        A clause, or None if the sizes fit.
    """
    if kv_heads is not None and heads % kv_heads:
        return f"{kv_heads} key-value heads do not divide {heads} heads"
    return heads_problem(width, heads, rotary=kv_heads is not None)
