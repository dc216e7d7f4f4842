"""Bidirectional transformers from scratch: every part of the architecture is a choice."""

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
    """Options of ``encoder``: the values that each choice may have."""

    depth: list[int] = Field([2, 4, 6], description="numbers of layers")
    hidden: list[int] = Field([128, 256], description="widths of a token's state")
    heads: list[int] = Field([4, 8], description="numbers of attention heads; divisors of the width")
    ffn: list[float] = Field(
        [1.0, 2.0, 4.0], description="widths of each layer's feed-forward, as shares of the hidden"
    )
    activation: list[Literal["gelu", "swiglu"]] = Field(["gelu", "swiglu"], description="of the feed-forward")
    norm: list[Literal["layer", "rms"]] = Field(["layer", "rms"], description="LayerNorm or RMSNorm")
    norm_place: list[Literal["pre", "post"]] = Field(["pre", "post"], description="before a part, or behind the sum")
    positions: list[Literal["learned", "rotary", "alibi"]] = Field(
        ["learned", "rotary", "alibi"], description="how a token's place is known"
    )
    attention: list[Literal["full", "sliding"]] = Field(
        ["full", "sliding"], description="to all tokens or to near ones"
    )
    windows: list[int] = Field([4, 8], description="tokens to each side that sliding attention may see")
    pooling: list[Literal["mean", "cls", "attention"]] = Field(
        ["mean", "cls", "attention"], description="how states become one embedding; [] leaves it to tasks.pooling"
    )


class ScratchEncoder(FromScratch):
    """Bidirectional transformers from scratch: depth, sizes, activation, norm, positions, window and pooling."""

    Options = EncoderOptions

    def __init__(self, options: EncoderOptions | None = None):
        super().__init__(options)
        self.refuse_below_one("depth", "hidden", "heads")
        if "sliding" in self.options.attention:
            self.refuse_below_one("windows")
        wrong = [share for share in self.options.ffn if share <= 0]
        if wrong:
            raise ConfigError(f"space.ffn has {wrong[0]}; expected shares above 0")
        if not self._sizes():
            raise ConfigError("space.heads has no divisor of a width in space.hidden; expected at least one")

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
        return unfit(hidden, heads, architecture["positions"] == "rotary")

    def size(self) -> int:
        """Exact: the feed-forward widths are Σ over depths d of |ffn|^d, a window is chosen where attention slides."""
        o = self.options
        windows = sum(len(o.windows) if kind == "sliding" else 1 for kind in o.attention)
        others = len(o.activation) * len(o.norm) * len(o.norm_place) * windows * max(1, len(o.pooling))
        return self._sizes() * sum(len(o.ffn) ** depth for depth in o.depth) * others

    def pooling(self, architecture: Architecture) -> str | None:
        return architecture.values.get("pooling")

    def build(self, architecture: Architecture) -> nn.Module:
        from search_spaces.scratch.encoder_model import EncoderConfig, EncoderModel

        tokens, pad = self.vocabulary
        same = ("activation", "norm", "norm_place", "positions")
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
                **{name: architecture[name] for name in same},
            )
        )

    def widths(self, architecture: Architecture) -> list[int]:
        """Of the feed-forward in each layer."""
        shares = (architecture[f"layer{i}.ffn"] for i in range(architecture["depth"]))
        return [max(1, round(share * architecture["hidden"])) for share in shares]

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Parameters, and FLOPs: 2 · tokens · (weights of every projection) + 4 · tokens² · hidden a layer.

        A window saves none: products beyond it are computed and masked.
        """
        h, widths = architecture["hidden"], self.widths(architecture)
        layer_norm = architecture["norm"] == "layer"
        ups = 2 if architecture["activation"] == "swiglu" else 1
        scored = architecture.values.get("pooling") == "attention"
        places = self.options.max_positions if architecture["positions"] == "learned" else 0
        norms = 2 * len(widths) + 1  # wherever they are
        matrices = sum(4 * h**2 + (ups + 1) * h * width for width in widths)
        biases = sum(4 * h + ups * width + h for width in widths)
        tables = (self.vocabulary[0] + places) * h
        return {
            "params": tables + matrices + biases + norms * h * (1 + layer_norm) + scored * h,
            "flops": 2 * tokens * (matrices + scored * h) + len(widths) * 4 * tokens**2 * h,
        }

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """A folder of transformers' own class where one is the same function, else one with its code.

        ``AutoModel.from_pretrained(folder)`` loads the one, with ``trust_remote_code=True`` the other; neither needs
        nas-meta. A ``BertModel`` gets a pooler that nobody trained unless ``add_pooling_layer=False`` is said, too.
        """
        from search_spaces.scratch.encoder_model import EncoderConfig, EncoderModel
        from search_spaces.scratch.encoder_native import as_native

        native = as_native(model)
        if native is None:
            EncoderConfig.register_for_auto_class()
            EncoderModel.register_for_auto_class("AutoModel")
        (native or model).save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        """The model by the class that is installed: a folder's own code is not run."""
        from transformers import BertModel

        from search_spaces.scratch.encoder_model import EncoderConfig, EncoderModel

        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind == EncoderConfig.model_type:
            return EncoderModel.from_pretrained(folder)
        return BertModel.from_pretrained(folder, add_pooling_layer=False) if kind == "bert" else super().load(folder)

    def _sizes(self) -> int:
        """How many triples of width, heads and positions fit each other."""
        o = self.options
        triples = ((h, n, p) for h in o.hidden for n in o.heads for p in o.positions)
        return sum(unfit(hidden, heads, positions == "rotary") is None for hidden, heads, positions in triples)


def unfit(hidden: int, heads: int, rotary: bool) -> str | None:
    """Why heads do not fit a width, as a clause; heads whose states are rotated are of even width."""
    if hidden % heads:
        return f"{heads} heads do not divide a width of {hidden}"
    if rotary and hidden // heads % 2:
        return f"heads of {hidden // heads} cannot be rotated; expected an even width"
    return None
