"""Model-agnostic meta-learning (Finn, Abbeel and Levine, 2017, "Model-Agnostic Meta-Learning for Fast Adaptation").

For each task, θ' = θ - α∇L_support(θ), for one or more steps, and θ is trained on Σ L_query(θ'), algorithm 1 of the
paper. The gradient goes through the inner steps: for one step it is (I - α∇²L_support(θ)) ∇L_query(θ').
``first_order: true`` takes the Hessian for zero (FOMAML, section 5.2).

θ is the encoder's body and a linear head on embeddings that are scaled to the length √``scale``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas_meta.embedding import Encoder
from nas_meta.learners.adaptation import AdaptationOptions, adapted
from nas_meta.learners.base import Learner
from nas_meta.learners.inner_loop import Weights, descend
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool

HEAD = ("learned.head.weight", "learned.head.bias")


class MAMLOptions(AdaptationOptions):
    """Options of MAML and the learners made from it."""

    inner_steps: int = Field(3, ge=1, description="gradient steps on a support set while meta-training")
    adapt_steps: int | None = Field(None, ge=1, description="the same while scoring; by default inner_steps")
    inner_lr: float = Field(0.2, gt=0, description="learning rate α of these steps")
    first_order: bool = Field(False, description="leave out second derivatives: less time and memory")
    scale: float = Field(10.0, gt=0, description="squared length of the embeddings that the head sees")
    meta_batch: int = Field(2, ge=1, description="episodes in a meta-training step; their gradients are averaged")


class MAML(Learner):
    """MAML: an initialisation from which few gradient steps on a support set suffice."""

    Options = MAMLOptions

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        return nn.ModuleDict({"head": nn.Linear(encoder.width, ways)})

    def start(self, encoder: Encoder, features: Callable[[], Tensor], ways: int) -> Weights:
        """The head that the inner loop starts from; ``features()`` are those of the support set, ``[N*K, D]``."""
        return {HEAD[0]: encoder.learned["head"].weight, HEAD[1]: encoder.learned["head"].bias}

    def rates(self, encoder: Encoder, weights: Weights) -> Mapping[str, Tensor | float]:
        """The inner learning rate of every weight that moves."""
        return dict.fromkeys(weights, self.options.inner_lr)

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        second_order = not self.options.first_order
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH) if second_order else nullcontext():
            logits = self.query_logits(encoder, pool, episode, self.options.inner_steps, second_order)
            return F.cross_entropy(logits, torch.from_numpy(episode.labels).to(logits.device))

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        steps = self.options.adapt_steps or self.options.inner_steps
        with torch.enable_grad():
            return self.query_logits(encoder, pool, episode, steps, second_order=False).detach()

    def query_logits(self, encoder: Encoder, pool: Pool, episode: Episode, steps: int, second_order: bool) -> Tensor:
        """Logits ``[N*Q, N]`` of the query examples after the inner loop on the support set."""
        body = self.adapted(encoder)
        support, query = episode.support.ravel(), episode.query.ravel()
        labels = torch.from_numpy(episode.support_labels).to(next(encoder.parameters()).device)
        still = None if body else self.features(encoder, pool, support, {})
        # Views: a head that starts from features depends on the body too, which is no part of the inner gradient.
        weights = {name: p.view_as(p) for name, p in body.items()}
        weights |= self.start(encoder, lambda: self.features(encoder, pool, support, body), len(episode.support))

        def loss_of(now: Weights) -> Tensor:
            z = self.features(encoder, pool, support, now) if still is None else still
            return F.cross_entropy(F.linear(z, now[HEAD[0]], now[HEAD[1]]), labels)

        rates = self.rates(encoder, weights)
        weights = descend(loss_of, weights, list(weights), rates, steps, second_order)
        return F.linear(self.features(encoder, pool, query, weights), weights[HEAD[0]], weights[HEAD[1]])

    def adapted(self, encoder: Encoder) -> dict[str, nn.Parameter]:
        return adapted(encoder, self.options)

    def features(self, encoder: Encoder, pool: Pool, indices: np.ndarray, weights: Weights) -> Tensor:
        """What the head sees of these texts under given weights: ``[len(indices), D]``."""
        own = {name: value for name, value in weights.items() if name.startswith("model.")}
        z = encoder.embed(pool, indices, weights=own or None)
        return self.options.scale**0.5 * F.normalize(z, dim=-1)
