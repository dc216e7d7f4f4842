"""Search space ``encoder``: bidirectional transformers from scratch, in which every part is a choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from nas_meta import Architecture, Choice
from nas_meta.errors import ConfigError
from search_spaces.scratch.base import FromScratch, FromScratchOptions

if TYPE_CHECKING:
    from torch import nn


class EncoderOptions(FromScratchOptions):
    """Options of the search space ``encoder``: the values of each choice."""

    depth: list[int] = Field([2, 4, 6], description="candidate numbers of layers")
    hidden: list[int] = Field([128, 256], description="candidate widths of a token state")
    heads: list[int] = Field(
        [4, 8], description="candidate numbers of attention heads; only divisors of the width are used"
    )
    ffn: list[float] = Field(
        [1.0, 2.0, 4.0], description="candidate widths of each layer's feed-forward, as multiples of the hidden width"
    )
    activation: list[Literal["gelu", "swiglu"]] = Field(
        ["gelu", "swiglu"], description="candidate activations of the feed-forward"
    )
    norm: list[Literal["layer", "rms"]] = Field(
        ["layer", "rms"], description="candidate normalisations: LayerNorm or RMSNorm"
    )
    norm_place: list[Literal["pre", "post"]] = Field(
        ["pre", "post"], description="where to normalise: before each sub-layer, or after its residual sum"
    )
    positions: list[Literal["learned", "rotary", "alibi"]] = Field(
        ["learned", "rotary", "alibi"], description="candidate position encodings"
    )
    attention: list[Literal["full", "sliding"]] = Field(
        ["full", "sliding"], description="whether a token attends to all tokens or only to those in a sliding window"
    )
    windows: list[int] = Field(
        [4, 8], description="candidate windows of sliding attention, in tokens to each side of a token"
    )
    pooling: list[Literal["mean", "cls", "attention"]] = Field(
        ["mean", "cls", "attention"],
        description="how token states are pooled into one embedding; an empty list leaves this to tasks.pooling",
    )


class ScratchEncoder(FromScratch):
    """Bidirectional transformers from scratch: depth, sizes, activation, norm, positions, window and pooling.

    Args:
        options: Values of the choices; the defaults of ``EncoderOptions`` if None.

    Raises:
        ConfigError: An option has an invalid value, or no sizes fit together.
    """

    Options = EncoderOptions

    def __init__(self, options: EncoderOptions | None = None):
        super().__init__(options)
        self.require_positive("depth", "hidden", "heads")
        if "sliding" in self.options.attention:
            self.require_positive("windows")
        wrong = [multiple for multiple in self.options.ffn if multiple <= 0]
        if wrong:
            raise ConfigError(f"space.ffn has {wrong[0]}; expected multiples above 0")
        if not self._sizes():
            raise ConfigError(
                "space.hidden and space.heads do not fit together; expected heads that divide a width and, for rotary "
                "positions, give heads of even width"
            )

    def choices(self) -> Mapping[str, Choice]:
        o = self.options
        table = {name: Choice(tuple(getattr(o, name))) for name in ("depth", "hidden", "heads")}
        for i in range(max(o.depth)):
            table[f"layer{i}.ffn"] = Choice(tuple(o.ffn), when={"depth": tuple(d for d in o.depth if d > i)})
        for name in ("activation", "norm", "norm_place", "positions", "attention"):
            table[name] = Choice(tuple(getattr(o, name)))
        if "sliding" in o.attention:
            table["window"] = Choice(tuple(o.windows), when={"attention": "sliding"})
        if o.pooling:
            table["pooling"] = Choice(tuple(o.pooling))
        return table

    def problem(self, architecture: Architecture) -> str | None:
        hidden, heads = architecture["hidden"], architecture["heads"]
        return heads_problem(hidden, heads, architecture["positions"] == "rotary")

    def size(self) -> int:
        """Return the exact number of architectures.

        There are Σ_d |ffn|^d combinations of feed-forward widths over the depths d, and only sliding attention has a
        choice of windows.
        """
        o = self.options
        windows = sum(len(o.windows) if kind == "sliding" else 1 for kind in o.attention)
        others = len(o.activation) * len(o.norm) * len(o.norm_place) * windows * max(1, len(o.pooling))
        return self._sizes() * sum(len(o.ffn) ** depth for depth in o.depth) * others

    def pooling(self, architecture: Architecture) -> str | None:
        return architecture.values.get("pooling")

    def build(self, architecture: Architecture) -> nn.Module:
        from search_spaces.scratch.encoder_model import EncoderConfig, EncoderModel

        tokens, pad = self.vocabulary
        unchanged = ("activation", "norm", "norm_place", "positions")
        return EncoderModel(
            EncoderConfig(
                vocab_size=tokens,
                pad_token_id=pad,
                hidden_size=architecture["hidden"],
                num_attention_heads=architecture["heads"],
                intermediate_sizes=self.widths(architecture),
                sliding_window=architecture.values.get("window"),
                pooling=self.pooling(architecture) or "mean",
                max_position_embeddings=self.options.max_positions,
                dropout=self.options.dropout,
                **{name: architecture[name] for name in unchanged},
            )
        )

    def widths(self, architecture: Architecture) -> list[int]:
        """Return the number of feed-forward neurons of each layer.

        Args:
            architecture: An architecture of the space.

        Returns:
            Numbers of neurons, each at least 1.
        """
        multiples = (architecture[f"layer{i}.ffn"] for i in range(architecture["depth"]))
        return [max(1, round(multiple * architecture["hidden"])) for multiple in multiples]

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Count parameters and FLOPs from the sizes alone.

        FLOPs per layer are 2 · tokens · (weights of every projection) + 4 · tokens² · hidden. A sliding window saves
        none, because the products outside it are computed and then masked.
        """
        h, widths = architecture["hidden"], self.widths(architecture)
        layer_norm = architecture["norm"] == "layer"
        ups = 2 if architecture["activation"] == "swiglu" else 1
        scored = architecture.values.get("pooling") == "attention"
        positions = self.options.max_positions if architecture["positions"] == "learned" else 0
        norms = 2 * len(widths) + 1  # the same number for pre-norm and post-norm
        matrices = sum(4 * h**2 + (ups + 1) * h * width for width in widths)
        biases = sum(4 * h + ups * width + h for width in widths)
        tables = (self.vocabulary[0] + positions) * h
        return {
            "params": tables + matrices + biases + norms * h * (1 + layer_norm) + scored * h,
            "flops": 2 * tokens * (matrices + scored * h) + len(widths) * 4 * tokens**2 * h,
        }

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Write a folder of an equivalent transformers class if there is one, otherwise a folder with the model code.

        ``AutoModel.from_pretrained(folder)`` loads the former; the latter also needs ``trust_remote_code=True``.
        Neither needs nas-meta. Load a ``BertModel`` with ``add_pooling_layer=False``, or transformers adds an untrained
        pooler.
        """
        from search_spaces.scratch.encoder_model import EncoderConfig, EncoderModel
        from search_spaces.scratch.encoder_native import as_native

        native = as_native(model)
        if native is None:
            EncoderConfig.register_for_auto_class()
            EncoderModel.register_for_auto_class("AutoModel")
        (native or model).save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        """Load the model with the installed class; code in the folder is not run."""
        from transformers import BertModel

        from search_spaces.scratch.encoder_model import EncoderConfig, EncoderModel

        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if model_type == EncoderConfig.model_type:
            return EncoderModel.from_pretrained(folder)
        if model_type == "bert":
            return BertModel.from_pretrained(folder, add_pooling_layer=False)
        return super().load(folder)

    def _sizes(self) -> int:
        """Return the number of valid triples of width, heads and positions."""
        o = self.options
        triples = ((h, n, p) for h in o.hidden for n in o.heads for p in o.positions)
        return sum(heads_problem(hidden, heads, positions == "rotary") is None for hidden, heads, positions in triples)


def heads_problem(hidden: int, heads: int, rotary: bool) -> str | None:
    """Explain why a number of heads does not fit a hidden width.

    Args:
        hidden: Width of a token state.
        heads: Number of attention heads.
        rotary: Whether positions are rotary, which needs heads of even width.

    Returns:
        A clause, or None if the heads fit.
    """
    if hidden % heads:
        return f"{heads} heads do not divide a width of {hidden}"
    if rotary and hidden // heads % 2:
        return f"rotary positions cannot use heads of width {hidden // heads}; expected an even width"
    return None
