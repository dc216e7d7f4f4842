"""Models of the search space ``cell-encoder``: freely wired layers with one operation each, over word embeddings.

State 0 is the embeddings. Layer i with operation f computes state_{i+1} = state_a + f(state_b), where a and b are
numbers of earlier states.

This file is copied into every exported folder, so it imports only torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput


class CellEncoderConfig(PretrainedConfig):
    """Configuration of a cell encoder.

    Args:
        vocab_size: Number of tokens.
        hidden_size: Width of a token state.
        max_position_embeddings: Longest text in tokens.
        operations: Operation of each layer, as :func:`operation` takes it.
        inputs: Number of the state that each layer reads.
        adds: Number of the state that each layer is added to.
        initializer_range: Standard deviation of initial weights.
        layer_norm_eps: Epsilon of the LayerNorm after the embeddings.
        **kwargs: Passed to ``PretrainedConfig``.
    """

    model_type = "nas-meta-cell-encoder"

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 384,
        max_position_embeddings: int = 512,
        operations: Sequence[str] = (),
        inputs: Sequence[int] = (),
        adds: Sequence[int] = (),
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.max_position_embeddings = max_position_embeddings
        self.operations, self.inputs, self.adds = list(operations), list(inputs), list(adds)
        self.initializer_range, self.layer_norm_eps = initializer_range, layer_norm_eps


class Attention(nn.Module):
    """Pre-norm self-attention over the tokens of the mask.

    Args:
        hidden: Width of a token state.
        heads: Number of heads; divides ``hidden``.
    """

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x)
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.out(attended.transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    """Pre-norm depthwise convolution along the text, followed by a pointwise one; padding tokens are set to zero.

    Args:
        hidden: Width of a token state.
        kernel: Width of the depthwise filters in tokens; odd.
    """

    def __init__(self, hidden: int, kernel: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.pointwise = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x) * mask.unsqueeze(-1)
        return self.pointwise(F.gelu(self.depthwise(x.transpose(1, 2)).transpose(1, 2)))


class GatedMLP(nn.Module):
    """Pre-norm gated MLP, (GELU(xW) ⊙ xV)U (Shazeer 2020, "GLU Variants Improve Transformer", equation 6).

    Args:
        hidden: Width of a token state.
        width: Number of neurons.
    """

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.gate, self.up, self.down = nn.Linear(hidden, width), nn.Linear(hidden, width), nn.Linear(width, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x)
        return self.down(F.gelu(self.gate(x)) * self.up(x))


class FeedForward(nn.Module):
    """Pre-norm feed-forward, GELU(xW)V.

    Args:
        hidden: Width of a token state.
        width: Number of neurons.
    """

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.up, self.down = nn.Linear(hidden, width), nn.Linear(width, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(x))))


class Identity(nn.Module):
    """Operation that returns zeros, so that its layer passes on the state that it is added to."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros_like(x)


class State(nn.Module):
    """Selection of one earlier state by its number.

    Args:
        number: Number of the state; 0 is the embeddings.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        return states[self.number]


class Layer(GradientCheckpointingLayer):
    """One operation and its wiring.

    Args:
        operation: Maps a state ``[B, T, hidden]`` and a mask ``[B, T]`` to ``[B, T, hidden]``.
        source: Selects the state that the operation reads.
        addend: Selects the state to which the result is added.
    """

    def __init__(self, operation: nn.Module, source: nn.Module, addend: nn.Module):
        super().__init__()
        self.operation, self.source, self.addend = operation, source, addend

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self.addend(states) + self.operation(self.source(states), mask)


def operation(value: str, hidden: int) -> nn.Module:
    """Create the module of an operation.

    Args:
        value: ``attention-HEADS``, ``convolution-KERNEL``, ``gated-mlp-MULTIPLE`` or ``feed-forward-MULTIPLE``, where
            the multiple of ``hidden`` is the number of neurons; any other value is the identity.
        hidden: Width of a token state.

    Returns:
        A module that takes a state ``[B, T, hidden]`` and a mask ``[B, T]``.
    """
    kind, _, size = value.rpartition("-")
    if kind == "attention":
        return Attention(hidden, int(size))
    if kind == "convolution":
        return Convolution(hidden, int(size))
    if kind == "gated-mlp":
        return GatedMLP(hidden, round(float(size) * hidden))
    if kind == "feed-forward":
        return FeedForward(hidden, round(float(size) * hidden))
    return Identity()


class CellEncoderModel(PreTrainedModel):
    """Encoder of word embeddings, wired layers and a final LayerNorm.

    Args:
        config: Sizes and wiring.
    """

    config_class = CellEncoderConfig
    base_model_prefix = "cell_encoder"

    def __init__(self, config: CellEncoderConfig):
        super().__init__(config)
        hidden = config.hidden_size
        self.words = nn.Embedding(config.vocab_size, hidden)
        self.positions = nn.Embedding(config.max_position_embeddings, hidden)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(
            Layer(operation(value, hidden), State(source), State(addend))
            for value, source, addend in zip(config.operations, config.inputs, config.adds, strict=True)
        )
        self.last_norm = nn.LayerNorm(hidden)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            # A depthwise filter sums over its kernel width only: initializer_range would make its output vanish.
            std = self.config.initializer_range if isinstance(module, nn.Linear) else module.kernel_size[0] ** -0.5
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutput:
        """Encode a batch of texts.

        Args:
            input_ids: Token ids ``[B, T]``.
            attention_mask: ``[B, T]``, 1 at tokens and 0 at padding; no padding by default.

        Returns:
            Output with token states ``[B, T, hidden]`` as ``last_hidden_state``.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = mask.bool()
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = [self.norm(self.words(input_ids) + self.positions(positions))]
        for layer in self.layers:
            # A copy: with gradient checkpointing a layer is recomputed and must see the states before it only.
            states.append(layer(tuple(states), mask))
        return BaseModelOutput(last_hidden_state=self.last_norm(states[-1]))
