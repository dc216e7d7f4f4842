"""Matching networks (Vinyals et al. 2016, "Matching Networks for One Shot Learning").

P(y | x̂, S) = Σ_i a(x̂, x_i) y_i with the attention a(x̂, x_i) = softmax_i(s · cos(f(x̂), g(x_i))) over the support set S
(equation 1). The paper has s = 1; a larger s suits pretrained encoders. Full context embeddings (appendix A) are
optional:

- g(x_i, S) = h→_i + h←_i + g'(x_i), the states of a bidirectional LSTM over the support set;
- f(x̂, S) = attLSTM(f'(x̂), g(S), P): for P steps, an LSTM cell with input f'(x̂), state h = ĥ + f'(x̂), and the read-out
  r = Σ_i softmax_i(hᵀg(x_i)) g(x_i) of the support set (equations 3 to 6).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nas_meta.learners.metric import MetricLearner, MetricOptions
from nas_meta.models.encoder import Encoder


class MatchingOptions(MetricOptions):
    """Options of matching networks."""

    scale: float = Field(10.0, gt=0, description="factor s of the cosine similarity; 1 in the paper")
    full_context: bool = Field(False, description="embed every example in the context of the whole support set")
    context_steps: int = Field(5, ge=1, description="steps P of the attention LSTM of full_context")


def attention_log_probabilities(support: Tensor, query: Tensor, scale: float) -> Tensor:
    """Compute log Σ_i a(x̂, x_i) y_i, the log-probability of every class.

    Args:
        support: ``[N, K, D]`` embeddings, row n of class n.
        query: ``[M, D]`` embeddings.
        scale: s.

    Returns:
        ``[M, N]``.
    """
    ways, shots, width = support.shape
    keys = F.normalize(support.reshape(ways * shots, width), dim=-1)
    attention = torch.log_softmax(scale * F.normalize(query, dim=-1) @ keys.T, dim=-1)
    return attention.view(len(query), ways, shots).logsumexp(-1)


class FullContext(nn.Module):
    """The embedding functions f and g of full context embeddings.

    Args:
        width: D, the width of an embedding.
        steps: P, the steps of the attention LSTM.
    """

    def __init__(self, width: int, steps: int):
        super().__init__()
        self.steps = steps
        self.over_support = nn.LSTM(width, width, bidirectional=True)
        self.over_query = nn.LSTMCell(width, 2 * width)
        self.width = width

    def support(self, z: Tensor) -> Tensor:
        """Compute g, the support embeddings in the context of the support set.

        Args:
            z: ``[S, D]``, the embeddings g'(x_i).

        Returns:
            ``[S, D]``.
        """
        with torch.backends.cudnn.flags(enabled=self.training):  # cuDNN has no gradients in evaluation mode
            states, _ = self.over_support(z)
        return states[:, : self.width] + states[:, self.width :] + z

    def query(self, z: Tensor, support: Tensor) -> Tensor:
        """Compute f, the query embeddings in the context of the support set.

        Args:
            z: ``[M, D]``, the embeddings f'(x̂).
            support: ``[S, D]``, the embeddings g(x_i, S).

        Returns:
            ``[M, D]``.
        """
        read = hidden = torch.zeros_like(z)
        cell = z.new_zeros(len(z), 2 * self.width)
        for _ in range(self.steps):
            state, cell = self.over_query(z, (torch.cat([hidden, read], dim=1), cell))
            hidden = state[:, : self.width] + z
            read = torch.softmax(hidden @ support.T, dim=-1) @ support
        return hidden


class Matching(MetricLearner):
    """Matching network: averages the labels of the support set, weighted by attention."""

    Options = MatchingOptions

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        if not self.options.full_context:
            return super().learned(encoder, ways)
        return FullContext(encoder.width, self.options.context_steps)

    def logits(self, encoder: Encoder, support: Tensor, query: Tensor) -> Tensor:
        if self.options.full_context:
            ways, shots, width = support.shape
            # Unit norm keeps the LSTM's gates and the read-out's softmax out of saturation.
            keys = encoder.learned.support(F.normalize(support.reshape(ways * shots, width), dim=-1))
            query = encoder.learned.query(F.normalize(query, dim=-1), keys)
            support = keys.view(ways, shots, width)
        return attention_log_probabilities(support, query, self.options.scale)
