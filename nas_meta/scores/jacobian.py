"""Jacobian covariance (Mellor et al. 2021, "Neural Architecture Search without Training", first version).

With J(x) the gradient of the summed embedding of a text with respect to its token states, and σ_i the eigenvalues of the
correlation matrix of J over texts, the score is -Σ log(σ_i + k) + 1/(σ_i + k), k = 1e-5.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nas_meta.embedding import Encoder
from nas_meta.scores.sample import Sample

K = 1e-5


def jacobian_covariance(encoder: Encoder, sample: Sample) -> float:
    """The score over the texts of the episodes, each text's J summed over its tokens."""
    rows, states = [], []
    table = next(m for m in encoder.model.modules() if isinstance(m, nn.Embedding))

    def keep(_module, _inputs, output):
        states.append(output.detach().requires_grad_(True))
        return states[-1]

    handle = table.register_forward_hook(keep)
    try:
        for chunk in np.array_split(sample.texts, max(1, len(sample.texts) // 16)):
            ids, mask = map(torch.from_numpy, sample.pool.batch(chunk))
            z = encoder(ids, mask)
            # Not the sum: behind a norm it is the same for every text.
            direction = torch.randn(z.shape[1], generator=torch.Generator().manual_seed(0))
            total = (z @ direction).sum()
            (gradient,) = torch.autograd.grad(total, states[-1])
            rows.append((gradient * mask.unsqueeze(-1)).sum(1))
    finally:
        handle.remove()
    correlation = np.corrcoef(torch.cat(rows).double().numpy())
    eigenvalues = np.linalg.eigvalsh(correlation)
    return float(-np.sum(np.log(np.clip(eigenvalues, 0, None) + K) + 1 / (np.clip(eigenvalues, 0, None) + K)))
