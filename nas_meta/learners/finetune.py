"""Fine-tuning: supervised training on the meta-train classes, then a new linear head for each support set.

The "Baseline" of Chen et al. 2019, "A Closer Look at Few-shot Classification": a linear classifier
softmax(W f(x) + b) over all meta-train classes is trained with the encoder f; for an episode, a new head is trained
on the support set with AdamW, and the body moves with it at a small learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nas_meta.embedding import Encoder
from nas_meta.learners.base import Learner, LearnerOptions, Step, accuracy, embed_distinct
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


class FineTuneOptions(LearnerOptions):
    """Options of fine-tuning."""

    head_lr: float = Field(1e-2, gt=0, description="learning rate of the linear head")
    adapt_steps: int = Field(10, ge=1, description="steps on each support set")
    body_lr: float = Field(2e-5, ge=0, description="learning rate of the body on each support set; 0 freezes it")


class FineTune(Learner):
    """A linear head on pooled output, trained briefly on the support set."""

    Options = FineTuneOptions

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Cross-entropy over all meta-train classes of the episode's examples, under ``encoder.learned``."""
        z = F.normalize(encoder.embed(pool, episode.indices), dim=-1)
        labels = torch.from_numpy(pool.labels[episode.indices]).to(z.device)
        return F.cross_entropy(encoder.learned(z), labels)

    def meta_train(self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode]) -> Iterator[Step]:
        # The head over all meta-train classes is of no use to an episode of other classes.
        device = next(encoder.parameters()).device
        encoder.learned = nn.Linear(encoder.width, len(pool.classes)).to(device)
        yield from super().meta_train(encoder, pool, draw)
        encoder.learned = nn.Module()

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        ways = len(episode.support)
        body = [p for p in encoder.model.parameters() if p.requires_grad] or list(encoder.body_parameters(False))
        before = [p.detach().clone() for p in body]
        labels = torch.from_numpy(episode.support_labels).to(before[0].device)
        support, query = episode.support.ravel(), episode.query.ravel()
        encoder.eval()
        try:
            head: nn.Linear | None = None
            for _ in range(self.options.adapt_steps):
                z = F.normalize(encoder.embed(pool, support), dim=-1)
                if head is None:
                    head, optimizer = self._new_head(z, ways, body)
                loss = F.cross_entropy(head(z), labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                return head(F.normalize(encoder.embed(pool, query), dim=-1))
        finally:
            with torch.no_grad():
                torch._foreach_copy_(body, before)
            for parameter in body:
                parameter.grad = None

    def accuracies(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
        if self.options.body_lr > 0:
            return super().accuracies(encoder, pool, tasks)
        # The body does not move, so every text is embedded once.
        z, position = embed_distinct(encoder, pool, tasks)
        z = F.normalize(z.cpu(), dim=-1).clone()
        return np.array([self._head_accuracy(z[torch.from_numpy(position[t.indices])], t) for t in tasks])

    def _head_accuracy(self, z: Tensor, episode: Episode) -> float:
        ways, shots = episode.support.shape
        support, query = z[: ways * shots], z[ways * shots :]
        head, optimizer = self._new_head(support, ways, [])
        labels = torch.from_numpy(episode.support_labels)
        for _ in range(self.options.adapt_steps):
            loss = F.cross_entropy(head(support), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return accuracy(head(query), episode)

    def _new_head(self, z: Tensor, ways: int, body: list[nn.Parameter]) -> tuple[nn.Linear, torch.optim.Optimizer]:
        # Zero weights: the first step moves each class towards its own examples, whatever the random state.
        head = nn.Linear(z.shape[1], ways).to(z.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        groups = [{"params": list(head.parameters()), "lr": self.options.head_lr}]
        if body and self.options.body_lr > 0:
            groups.append({"params": body, "lr": self.options.body_lr})
        return head, torch.optim.AdamW(groups, weight_decay=self.options.weight_decay)
