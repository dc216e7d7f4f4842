"""The models of ``encoder``: bidirectional transformers of any norm, place of it, positions, activation and window.

One class for all of them, for no class of transformers has them all, and two classes would differ in more than in what
was chosen. Its parts are transformers' own, and where a class of transformers is the same function, its conventions
hold, so that weights go over as they are (:mod:`search_spaces.scratch.encoder_native`):

- post-norm (Vaswani et al. 2017) as BERT: x ← N(x + f(x)), and the embeddings are normalised;
- pre-norm (Xiong et al. 2020): x ← x + f(N(x)), and the last state is normalised; with LayerNorm as ModernBERT, which
  normalises the embeddings in the place of the first layer's input, with RMSNorm as Llama and EuroBERT.

The file needs torch and transformers alone: it is copied into exported folders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb


class EncoderConfig(PretrainedConfig):
    """Sizes, one feed-forward width a layer, and what each choice of the space ``encoder`` was.

    Args:
        activation: ``gelu``, W₂GELU(W₁x), or ``swiglu``, W₂(SiLU(Vx) ⊙ W₁x) (Shazeer 2020, equation 6).
        norm: ``layer`` or ``rms``; norm_place: ``pre`` or ``post``.
        positions: ``learned``, ``rotary`` (Su et al. 2021) or ``alibi`` (Press et al. 2022), here symmetric.
        sliding_window: a token sees so many to each side; None sees all.
        pooling: ``attention`` has scores of the tokens learned; other values say what the model is meant for.
    """

    model_type = "nas-meta-encoder"

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 256,
        num_attention_heads: int = 4,
        intermediate_sizes: Sequence[int] = (),
        activation: str = "gelu",
        norm: str = "layer",
        norm_place: str = "pre",
        positions: str = "rotary",
        sliding_window: int | None = None,
        pooling: str = "mean",
        max_position_embeddings: int = 512,
        dropout: float = 0.1,
        initializer_range: float = 0.02,
        norm_eps: float = 1e-5,
        rope_theta: float = 10_000.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size, self.num_attention_heads = vocab_size, hidden_size, num_attention_heads
        self.intermediate_sizes = list(intermediate_sizes)
        self.activation, self.norm, self.norm_place, self.positions = activation, norm, norm_place, positions
        self.sliding_window, self.pooling = sliding_window, pooling
        self.max_position_embeddings, self.dropout = max_position_embeddings, dropout
        self.initializer_range, self.norm_eps, self.rope_theta = initializer_range, norm_eps, rope_theta

    @property
    def num_hidden_layers(self) -> int:
        """How deep it is."""
        return len(self.intermediate_sizes)

    @property
    def norms_embeddings(self) -> bool:
        """Whether the embeddings are normalised; where the norm comes first, the first layer then takes them so."""
        return self.norm_place == "post" or self.norm == "layer"


def norm_of(config: EncoderConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over the hidden size."""
    if config.norm == "rms":
        return LlamaRMSNorm(config.hidden_size, eps=config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)


def slopes(heads: int) -> list[float]:
    """ALiBi's slope of each head: 2^(-8h/n), and for n no power of two, those of the next lower one and some of 2n."""
    power = 2 ** math.floor(math.log2(heads))
    return [2 ** (-8 * (h + 1) / power) for h in range(power)] + [
        2 ** (-4 * (2 * h + 1) / power) for h in range(heads - power)
    ]


class Attention(nn.Module):
    """Self-attention where a mask allows it."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        if rotation is not None:
            q, k = apply_rotary_pos_emb(q, k, *rotation)
        dropped = self.dropout.p if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype), dropout_p=dropped)
        return self.out(seen.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """W₂GELU(W₁x), or gated by SiLU(Vx) in the place of GELU."""

    def __init__(self, config: EncoderConfig, width: int):
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, width) if config.activation == "swiglu" else None
        self.up, self.down = nn.Linear(config.hidden_size, width), nn.Linear(width, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x))


class Layer(GradientCheckpointingLayer):
    """Attention and feed-forward, each with its norm before it or behind the sum."""

    def __init__(self, config: EncoderConfig, number: int):
        super().__init__()
        self.pre = config.norm_place == "pre"
        taken = self.pre and number == 0 and config.norms_embeddings
        self.attention_norm = nn.Identity() if taken else norm_of(config)
        self.attention = Attention(config)
        self.ffn_norm = norm_of(config)
        self.ffn = FeedForward(config, config.intermediate_sizes[number])
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        if self.pre:
            x = x + self.dropout(self.attention(self.attention_norm(x), mask, rotation))
            return x + self.dropout(self.ffn(self.ffn_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, mask, rotation)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))


class EncoderModel(PreTrainedModel):
    """Embeddings, layers, a last norm where norms come first; scores of the tokens where pooling is by attention."""

    config_class = EncoderConfig
    base_model_prefix = "encoder"

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        hidden = config.hidden_size
        self.words = nn.Embedding(config.vocab_size, hidden)
        learned = config.positions == "learned"
        self.positions = nn.Embedding(config.max_position_embeddings, hidden) if learned else None
        self.norm = norm_of(config) if config.norms_embeddings else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.last_norm = norm_of(config) if config.norm_place == "pre" else nn.Identity()
        if config.pooling == "attention":
            # [..., tokens] of [..., tokens, hidden]: how much each token counts, before the softmax.
            self.pooling_scores = nn.Sequential(nn.Linear(hidden, 1, bias=False), nn.Flatten(-2))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, (nn.LayerNorm, LlamaRMSNorm)):
            nn.init.ones_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.words = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """Token states ``[batch, tokens, hidden]`` as ``last_hidden_state``; where pooling is by attention, also
        ``pooler_output`` ``[batch, hidden]``.

        Args:
            attention_mask: ``[batch, tokens]``, 1 at tokens; or ``[batch, 1, tokens, tokens]``, true or 0 where a token
                is seen, for texts that are packed; there is no ``pooler_output`` then.
            position_ids: ``[batch, tokens]``; by default 0, 1, ...
            token_type_ids: what a tokenizer may give, too; not looked at.
        """
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        x = self.words(input_ids)
        if self.positions is not None:
            x = x + self.positions(position_ids)
        x = self.dropout(self.norm(x))
        mask = self._mask(attention_mask, position_ids, x.dtype)
        rotation = self._rotation(position_ids, x.dtype) if self.config.positions == "rotary" else None
        for layer in self.layers:
            x = layer(x, mask, rotation)
        x = self.last_norm(x)
        pooled = None
        if self.config.pooling == "attention" and attention_mask.ndim == 2:
            scores = self.pooling_scores(x).masked_fill(attention_mask == 0, -torch.inf)
            pooled = (x * scores.softmax(1).unsqueeze(-1)).sum(1)
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=pooled)

    def _mask(self, attention_mask: Tensor, places: Tensor, dtype: torch.dtype) -> Tensor:
        """What is added to the products of queries and keys, ``[batch, 1 or heads, 1 or tokens, tokens]``."""
        if attention_mask.ndim == 2:
            seen = attention_mask[:, None, None, :].bool()
        else:
            seen = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
        bias = torch.zeros((), dtype=dtype, device=seen.device)
        alibi = self.config.positions == "alibi"
        if alibi or self.config.sliding_window is not None:
            distance = (places[:, None, :, None] - places[:, None, None, :]).abs()
            if self.config.sliding_window is not None:
                seen = seen & (distance <= self.config.sliding_window)
            if alibi:
                steep = torch.tensor(slopes(self.config.num_attention_heads), dtype=dtype, device=seen.device)
                bias = -steep[:, None, None] * distance
        # Not lower than bfloat16 can be: autocast would make it minus infinity, and a row of that no number.
        lowest = max(torch.finfo(dtype).min, torch.finfo(torch.bfloat16).min)
        return bias.expand(torch.broadcast_shapes(bias.shape, seen.shape)).masked_fill(~seen, lowest)

    def _rotation(self, places: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each ``[batch or 1, tokens, width of a head]``."""
        width = self.config.hidden_size // self.config.num_attention_heads
        steps = torch.arange(0, width, 2, dtype=torch.float, device=places.device) / width
        angles = places.unsqueeze(-1) * self.config.rope_theta**-steps
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)
