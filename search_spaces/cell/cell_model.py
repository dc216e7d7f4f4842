"""The models of ``cell-encoder``: layers of one operation each, wired freely, over word embeddings.

With l the operation, a and b states before the layer: state_{i+1} = state_a + l(state_b). State 0 are the embeddings.
The file needs torch and transformers alone: it is copied into every exported folder.
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
    """Sizes, and for every layer its operation, the state it reads and the state it is added to."""

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
    """Self-attention over the tokens of the mask."""

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
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.out(seen.transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    """Depthwise convolution along the text, then a pointwise one; padding is as silent as what is beyond the text."""

    def __init__(self, hidden: int, kernel: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.pointwise = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x) * mask.unsqueeze(-1)
        return self.pointwise(F.gelu(self.depthwise(x.transpose(1, 2)).transpose(1, 2)))


class GatedMLP(nn.Module):
    """(GELU(xW) ⊙ xV)U (Shazeer 2020, "GLU Variants Improve Transformer", equation 6)."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.gate, self.up, self.down = nn.Linear(hidden, width), nn.Linear(hidden, width), nn.Linear(width, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x)
        return self.down(F.gelu(self.gate(x)) * self.up(x))


class FeedForward(nn.Module):
    """GELU(xW)V."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.up, self.down = nn.Linear(hidden, width), nn.Linear(width, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(x))))


class Identity(nn.Module):
    """Adds nothing, so that the layer passes on the state it would be added to."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros_like(x)


class State(nn.Module):
    """A state before the layer, by its number."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        return states[self.number]


class Layer(GradientCheckpointingLayer):
    """One operation and its wiring."""

    def __init__(self, operation: nn.Module, source: nn.Module, addend: nn.Module):
        super().__init__()
        self.operation, self.source, self.addend = operation, source, addend

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self.addend(states) + self.operation(self.source(states), mask)


def operation(value: str, hidden: int) -> nn.Module:
    """The module of an operation such as ``attention-4``: heads, kernel width, or width in shares of ``hidden``."""
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
    """Word embeddings, layers, a last normalisation."""

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
            # A depthwise filter sums over its width alone: with the others' deviation it would start as good as silent.
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
        """Token states ``[batch, tokens, hidden]`` as ``last_hidden_state``."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = mask.bool()
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        states = [self.norm(self.words(input_ids) + self.positions(places))]
        for layer in self.layers:
            # A copy: a layer that is computed again must see what was there before it.
            states.append(layer(tuple(states), mask))
        return BaseModelOutput(last_hidden_state=self.last_norm(states[-1]))
