"""Models of the search space ``encoder``: bidirectional transformers with a choice of every part.

No class of transformers offers all the choices, and architectures of two classes would differ in more than the choices,
so one class implements all of them. It is built from parts of transformers. Where a class of transformers computes the
same function, this class follows its conventions, so that weights can be copied as they are
(:mod:`search_spaces.scratch.encoder_native`):

- Post-norm (Vaswani et al. 2017) follows BERT: x ← N(x + f(x)), and the embeddings are normalised.
- Pre-norm (Xiong et al. 2020) is x ← x + f(N(x)), and the last state is normalised. With LayerNorm it follows
  ModernBERT, which normalises the embeddings and therefore not the input of the first attention. With RMSNorm it
  follows Llama and EuroBERT, which do not normalise the embeddings.

This file is copied into exported folders, so it imports only torch and transformers.
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
    """Configuration of an encoder: its sizes and the choices of the search space ``encoder``.

    Args:
        vocab_size: Number of tokens.
        hidden_size: Width of a token state.
        num_attention_heads: Number of heads; divides ``hidden_size``.
        intermediate_sizes: Number of feed-forward neurons of each layer; the length is the number of layers.
        activation: ``gelu``, W₂GELU(W₁x), or ``swiglu``, W₂(SiLU(Vx) ⊙ W₁x) (Shazeer 2020, equation 6).
        norm: ``layer`` for LayerNorm or ``rms`` for RMSNorm.
        norm_place: ``pre`` or ``post``.
        positions: ``learned``, ``rotary`` (Su et al. 2021) or ``alibi`` (Press et al. 2022), here symmetric.
        sliding_window: Number of tokens to each side that a token attends to; None for all tokens.
        pooling: ``attention`` adds learned scores of the tokens; other values only record the intended pooling.
        max_position_embeddings: Longest text in tokens, for learned positions.
        dropout: Dropout rate of states and attention weights.
        initializer_range: Standard deviation of initial weights.
        norm_eps: Epsilon of the normalisations.
        rope_theta: Base of the frequencies of rotary positions.
        **kwargs: Passed to ``PretrainedConfig``.
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
        """Number of layers."""
        return len(self.intermediate_sizes)

    @property
    def norms_embeddings(self) -> bool:
        """Whether the embeddings are normalised; a first pre-norm layer then does not normalise them again."""
        return self.norm_place == "post" or self.norm == "layer"


def norm_of(config: EncoderConfig) -> nn.Module:
    """Create the normalisation over the hidden size.

    Args:
        config: Configuration of the encoder.

    Returns:
        LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019).
    """
    if config.norm == "rms":
        return LlamaRMSNorm(config.hidden_size, eps=config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps)


def slopes(heads: int) -> list[float]:
    """Return ALiBi's slope of each head (Press et al. 2022, section 3).

    For n heads, a power of two, the slopes are 2^(-8h/n) for h = 1, ..., n. Otherwise the first slopes are those of
    the next lower power of two p, followed by every other slope of 2p. For example, 2 heads have slopes [1/16, 1/256],
    and 3 heads [1/16, 1/256, 1/4].

    Args:
        heads: Number of heads n.

    Returns:
        Slopes ``[heads]``.
    """
    power = 2 ** math.floor(math.log2(heads))
    return [2 ** (-8 * (h + 1) / power) for h in range(power)] + [
        2 ** (-4 * (2 * h + 1) / power) for h in range(heads - power)
    ]


class Attention(nn.Module):
    """Multi-head self-attention with a given bias and optional rotary positions.

    Args:
        config: Configuration of the encoder.
    """

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
        dropout = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype), dropout_p=dropout)
        return self.out(attended.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Feed-forward: W₂GELU(W₁x), or W₂(SiLU(Vx) ⊙ W₁x) with the activation ``swiglu``.

    Args:
        config: Configuration of the encoder.
        width: Number of neurons.
    """

    def __init__(self, config: EncoderConfig, width: int):
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, width) if config.activation == "swiglu" else None
        self.up, self.down = nn.Linear(config.hidden_size, width), nn.Linear(width, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)) if self.gate is None else F.silu(self.gate(x)) * self.up(x))


class Layer(GradientCheckpointingLayer):
    """Attention and feed-forward, each normalised before it (pre-norm) or after its residual sum (post-norm).

    Args:
        config: Configuration of the encoder.
        number: Index of the layer, from 0.
    """

    def __init__(self, config: EncoderConfig, number: int):
        super().__init__()
        self.pre = config.norm_place == "pre"
        is_normalised = self.pre and number == 0 and config.norms_embeddings
        self.attention_norm = nn.Identity() if is_normalised else norm_of(config)
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
    """Bidirectional transformer with token embeddings, layers and, if pre-norm, a final normalisation.

    With ``pooling="attention"`` the model also has ``pooling_scores``, which weight the tokens of a text.

    Args:
        config: Sizes and choices.
    """

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
            # Maps states [..., tokens, hidden] to the logits [..., tokens] of the tokens' pooling weights.
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
        """Encode a batch of texts.

        Args:
            input_ids: Token ids ``[B, T]``.
            attention_mask: ``[B, T]``, 1 at tokens and 0 at padding; no padding by default. Packed texts take a mask
                ``[B, 1, T, T]`` instead: either boolean, True where a token is attended to, or numeric, 0 there.
            position_ids: ``[B, T]``; 0, 1, ... by default.
            token_type_ids: Ignored; accepted because tokenizers may return it.

        Returns:
            Output with token states ``[B, T, hidden]`` as ``last_hidden_state``. With ``pooling="attention"`` and a
            mask ``[B, T]``, ``pooler_output`` holds embeddings ``[B, hidden]``; otherwise it is None.
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

    def _mask(self, attention_mask: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the bias of the attention scores, ``[batch, 1 or heads, 1 or tokens, tokens]``."""
        if attention_mask.ndim == 2:
            allowed = attention_mask[:, None, None, :].bool()
        else:
            allowed = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
        bias = torch.zeros((), dtype=dtype, device=allowed.device)
        alibi = self.config.positions == "alibi"
        if alibi or self.config.sliding_window is not None:
            distance = (positions[:, None, :, None] - positions[:, None, None, :]).abs()
            if self.config.sliding_window is not None:
                allowed = allowed & (distance <= self.config.sliding_window)
            if alibi:
                slope = torch.tensor(slopes(self.config.num_attention_heads), dtype=dtype, device=allowed.device)
                bias = -slope[:, None, None] * distance
        # Not below the minimum of bfloat16: autocast would round it to -inf, and a fully masked row would give NaN.
        lowest = max(torch.finfo(dtype).min, torch.finfo(torch.bfloat16).min)
        return bias.expand(torch.broadcast_shapes(bias.shape, allowed.shape)).masked_fill(~allowed, lowest)

    def _rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of rotary positions, each ``[batch or 1, tokens, width of a head]``."""
        width = self.config.hidden_size // self.config.num_attention_heads
        steps = torch.arange(0, width, 2, dtype=torch.float, device=positions.device) / width
        angles = positions.unsqueeze(-1) * self.config.rope_theta**-steps
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)
