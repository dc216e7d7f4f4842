"""Ridge regression as the head (Bertinetto et al. 2019, "Meta-learning with differentiable closed-form solvers").

R2-D2: for support embeddings Z ``[S, D]`` and one-hot labels Y ``[S, N]``, the head is
W = argmin ||ZW - Y||² + λ||W||² = Zᵀ(ZZᵀ + λI)⁻¹Y (equation 4; Woodbury's identity reduces the system from D × D to
S × S), and the logits of a query are α·f(x)W + β (equation 5). λ, α and β are learned; the gradient flows through the
solution. Embeddings are scaled to unit norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nas_meta.learners.metric import MetricLearner, MetricOptions
from nas_meta.models.encoder import Encoder


class RidgeOptions(MetricOptions):
    """Options of the ridge head."""

    ridge: float = Field(1.0, gt=0, description="initial value of the learned regularisation λ")
    scale: float = Field(10.0, gt=0, description="initial value of the learned factor α of the logits")


def ridge_weights(support: Tensor, labels: Tensor, ridge: Tensor | float) -> Tensor:
    """Compute the ridge-regression weights Zᵀ(ZZᵀ + λI)⁻¹Y.

    Args:
        support: Z ``[S, D]``, the embeddings.
        labels: Y ``[S, N]``, the targets.
        ridge: λ.

    Returns:
        ``[D, N]``.
    """
    gram = support @ support.T
    return support.T @ torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype).to(gram), labels)


class Ridge(MetricLearner):
    """R2-D2: solves ridge regression on the support set in closed form and trains through the solution."""

    Options = RidgeOptions

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        module = super().learned(encoder, ways)
        module.log_ridge = nn.Parameter(torch.tensor(self.options.ridge).log())
        module.scale = nn.Parameter(torch.tensor(self.options.scale))
        module.bias = nn.Parameter(torch.tensor(0.0))
        return module

    def logits(self, encoder: Encoder, support: Tensor, query: Tensor) -> Tensor:
        ways, shots, width = support.shape
        labels = torch.arange(ways, device=support.device).repeat_interleave(shots)
        return self.task_logits(encoder, support.reshape(ways * shots, width), labels, ways, query)

    def task_logits(self, encoder: Encoder, support: Tensor, labels: Tensor, ways: int, query: Tensor) -> Tensor:
        learned, z = encoder.learned, F.normalize(support, dim=-1)
        weights = ridge_weights(z, F.one_hot(labels, ways).to(z.dtype), learned.log_ridge.exp())
        return learned.scale * F.normalize(query, dim=-1) @ weights + learned.bias
