"""Fine-tuning: supervised training on the meta-train classes, then a new linear head for each support set.

This is the "Baseline" of Chen et al. 2019, "A Closer Look at Few-shot Classification". A linear classifier
softmax(W f(x) + b) over all meta-train classes is trained together with the encoder f. For each episode, a new head is
trained on the support set with AdamW, and the body is trained along with it at a small learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nas_meta.learners.base import Classify, Step, accuracy, embed_distinct, freeze_all_but
from nas_meta.learners.inner_loop.moving_parameters import AdaptationOptions, AdaptingLearner
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool

Embed = Callable[[np.ndarray], Tensor]
"""Embeds the examples of the given indices: ``[M]`` to ``[M, D]``."""


class FineTuneOptions(AdaptationOptions):
    """Options of fine-tuning."""

    head_lr: float = Field(1e-2, gt=0, description="learning rate of the linear head")
    adapt_steps: int = Field(10, ge=1, description="AdamW steps on each support set")
    body_lr: float = Field(2e-5, ge=0, description="learning rate of the encoder on each support set; 0 freezes it")
    early_stopping: bool = Field(
        False, description="choose the number of steps on one held-out shot per class; no effect with a single shot"
    )


class ClassHead(nn.Linear):
    """A linear layer that is not saved with the encoder, because only meta-training needs it."""

    def named_values(self) -> dict[str, Tensor]:
        """Return the weight and the bias by name."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def load_parameters(self, values: Mapping[str, Tensor]) -> None:
        """Copy the weight and the bias.

        Args:
            values: :meth:`named_values` of another head of this shape.
        """
        for name, parameter in self.named_parameters():
            parameter.copy_(values[name])

    def _save_to_state_dict(self, *_: Any) -> None:
        """Save nothing."""

    def _load_from_state_dict(self, *_: Any) -> None:
        """Load nothing."""


class FineTune(AdaptingLearner):
    """Fine-tuning: trains a linear head on embeddings of the support set for a few steps."""

    Options = FineTuneOptions

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Compute the cross-entropy of an episode's examples over all meta-train classes."""
        z = F.normalize(encoder.embed(pool, episode.indices), dim=-1)
        labels = torch.from_numpy(pool.labels[episode.indices]).to(z.device)
        return F.cross_entropy(encoder.learned(z), labels)

    def meta_train(
        self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode], start: Mapping[str, Any] | None = None
    ) -> Iterator[Step]:
        # Episodes of other classes cannot use the head over all meta-train classes: it exists during training only.
        device = next(encoder.parameters()).device
        if start is None:
            head = ClassHead(encoder.width, len(pool.classes)).to(device)
        else:
            # Without initialisation: it would advance the random numbers that the caller has restored.
            head = nn.utils.skip_init(ClassHead, encoder.width, len(pool.classes), device=device)
            head.load_parameters(start["head"])
        encoder.learned = head
        try:
            for step in super().meta_train(encoder, pool, draw, start):
                yield replace(step, state=lambda step=step: {**step.state(), "head": head.named_values()})
        finally:
            encoder.learned = nn.Module()

    def adapted(self, encoder: Encoder) -> dict[str, nn.Parameter]:
        return super().adapted(encoder) if self.options.body_lr > 0 else {}

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        with self.adapting(encoder, pool, episode) as classify:
            return classify(episode.query.ravel())

    @contextmanager
    def adapting(self, encoder: Encoder, pool: Pool, episode: Episode) -> Iterator[Classify]:
        encoder.eval()
        body = list(self.adapted(encoder).values())
        trainable = [p for p in encoder.model.parameters() if p.requires_grad]
        freeze_all_but(encoder, body)
        before = [p.detach().clone() for p in body]

        def embed(indices: np.ndarray) -> Tensor:
            return F.normalize(encoder.embed(pool, indices), dim=-1)

        def restore() -> None:
            with torch.no_grad():
                for parameter, value in zip(body, before, strict=True):
                    parameter.copy_(value)

        def classify(queries: np.ndarray) -> Tensor:
            with torch.no_grad():
                return head(embed(queries))

        try:
            head = self._fit(embed, episode, body, restore)
            yield classify
        finally:
            restore()
            for parameter in body:
                parameter.grad = None
            # Meta-training may continue after this evaluation.
            freeze_all_but(encoder, trainable)

    def accuracies(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
        if self.adapted(encoder):
            return super().accuracies(encoder, pool, tasks)
        # The body is not adapted, so each distinct example needs to be embedded only once.
        z, position = embed_distinct(encoder, pool, tasks)
        z = F.normalize(z.cpu(), dim=-1).clone()

        def score(task: Episode) -> float:
            head = self._fit(lambda indices: z[position[indices]], task, [], lambda: None)
            with torch.no_grad():
                return accuracy(head(z[position[task.query.ravel()]]), task)

        return np.array([score(task) for task in tasks])

    def _fit(self, embed: Embed, episode: Episode, body: list[nn.Parameter], restore: Callable[[], None]) -> nn.Linear:
        """Train a new head, and the body with it, on the support set; ``restore`` resets the body."""
        steps, support = self.options.adapt_steps, episode.support
        if self.options.early_stopping and support.shape[1] > 1:
            losses = [loss for _, loss in self._descend(embed, support[:, :-1], body, support[:, -1:], steps)]
            steps = int(np.argmin(losses)) + 1
            restore()
        for head, _ in self._descend(embed, support, body, None, steps):  # noqa: B007
            continue
        return head

    def _descend(
        self, embed: Embed, support: np.ndarray, body: list[nn.Parameter], held_out: np.ndarray | None, steps: int
    ) -> Iterator[tuple[nn.Linear, float]]:
        """Yield the head after each step on ``[N, K]`` support examples, with its loss on held-out ones or 0."""
        z = embed(support.ravel())
        head, optimizer = self._new_head(z, len(support), body)
        labels = torch.arange(len(support), device=z.device).repeat_interleave(support.shape[1])
        for step in range(steps):
            if step and body:
                z = embed(support.ravel())
            loss = F.cross_entropy(head(z), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            held_out_loss = 0.0
            if held_out is not None:
                with torch.no_grad():
                    z_held_out = embed(held_out.ravel())
                    targets = torch.arange(len(support), device=z.device)
                    held_out_loss = F.cross_entropy(head(z_held_out), targets).item()
            yield head, held_out_loss

    def _new_head(self, z: Tensor, ways: int, body: list[nn.Parameter]) -> tuple[nn.Linear, torch.optim.Optimizer]:
        """Return a head for N classes and its optimizer, which also trains the body."""
        # From zero weights, the first step moves each class towards its own examples, for every random state.
        head = nn.utils.skip_init(nn.Linear, z.shape[1], ways, device=z.device, dtype=z.dtype)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        groups = [{"params": list(head.parameters()), "lr": self.options.head_lr}]
        if body:
            groups.append({"params": body, "lr": self.options.body_lr})
        return head, torch.optim.AdamW(groups, weight_decay=self.options.training.weight_decay)
