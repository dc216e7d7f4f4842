"""The base class of metric learners, which classify from embeddings and do not change the encoder on a support set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nas_meta.learners.balancing import balanced_rows
from nas_meta.learners.base import Learner, LearnerOptions, accuracy, embed_distinct
from nas_meta.learners.head_fitting import fit_head
from nas_meta.learners.heads import NONE, SHRINKAGE, Head
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode, EpisodeShape
from nas_meta.tasks.pool import Pool, Tasks


class MetricOptions(LearnerOptions):
    """Options of all metric learners."""

    head: Literal["none", "whitening", "linear", "auto"] = Field(
        "none",
        description="map of the embeddings that is fitted once after the training, on meta-train: whitening within "
        "classes, a trained linear map, or auto, the one that is best on meta-validation, if any",
    )
    shrinkage: float | None = Field(
        SHRINKAGE,
        ge=0,
        le=1,
        description="weight of the identity in the covariance of whitening; null computes it (Ledoit and Wolf)",
    )


class MetricLearner(Learner):
    """A learner that compares query embeddings with support embeddings.

    Subclasses define :meth:`logits`. For evaluation, every distinct example of all episodes is embedded only once.
    Options that derive from :class:`MetricOptions` add a head (:mod:`nas_meta.learners.heads`).
    """

    many_ways = True

    @abstractmethod
    def logits(self, encoder: Encoder, support: Tensor, query: Tensor) -> Tensor:
        """Compute the logits of query examples from embeddings.

        Args:
            encoder: The encoder; the learner's own parameters are in ``encoder.learned``.
            support: ``[N, K, D]`` embeddings, row n of class n.
            query: ``[M, D]`` embeddings.

        Returns:
            ``[M, N]``.
        """

    def evaluation_logits(self, encoder: Encoder, support: Tensor, query: Tensor, form: str) -> Tensor:
        """Compute logits as in evaluation, which may differ from training; by default :meth:`logits`.

        Args:
            encoder: The encoder.
            support: ``[N, K, D]`` embeddings, after the head.
            query: ``[M, D]`` embeddings, after the head.
            form: One of :meth:`forms`.

        Returns:
            ``[M, N]``.
        """
        return self.logits(encoder, support, query)

    def task_logits(self, encoder: Encoder, support: Tensor, labels: Tensor, ways: int, query: Tensor) -> Tensor:
        """Compute logits as in evaluation from a support set whose classes may differ in size.

        By default the examples of smaller classes are repeated in turn until all classes are equally large.

        Args:
            encoder: The encoder; the learner's own parameters are in ``encoder.learned``.
            support: ``[S, D]`` embeddings, after the head.
            labels: ``[S]``, the class of each support example, from 0 to ``ways`` - 1; every class occurs.
            ways: N, the number of classes.
            query: ``[M, D]`` embeddings, after the head.

        Returns:
            ``[M, N]``.
        """
        rows = torch.from_numpy(balanced_rows(labels.cpu().numpy(), ways)).to(support.device)
        return self.evaluation_logits(encoder, support[rows], query, self.form(encoder))

    def forms(self) -> Sequence[str]:
        """Return the forms of evaluation to choose from on meta-validation; by default the one of the training."""
        return ("",)

    @property
    def training_form(self) -> int:
        """Index of the training's form among :meth:`forms`; 0 if there is no choice."""
        return 0

    def form(self, encoder: Encoder) -> str:
        """Return the form of evaluation that is used; by default the only one.

        Args:
            encoder: The encoder, which has the form that :meth:`finish` has chosen.
        """
        return self.forms()[int(encoder.learned.form)] if len(self.forms()) > 1 else self.forms()[0]

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        module = super().learned(encoder, ways)
        if getattr(self.options, "head", NONE) != NONE:
            module.head = Head(encoder.width)
        if len(self.forms()) > 1:
            module.register_buffer("form", torch.tensor(self.training_form))
        return module

    def finish(self, encoder: Encoder, tasks: Tasks, shape: EpisodeShape, seed: int, episodes: int) -> None:
        fit_head(self, encoder, tasks, shape, seed, episodes)

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        z = encoder.embed(pool, episode.indices)
        ways, shots = episode.support.shape
        logits = self.logits(encoder, z[: ways * shots].view(ways, shots, -1), z[ways * shots :])
        return F.cross_entropy(logits, torch.from_numpy(episode.labels).to(z.device))

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        with torch.inference_mode():
            return self._logits(encoder, encoder.embed(pool, episode.indices), episode)

    def accuracies(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
        z, position = embed_distinct(encoder, pool, tasks)
        with torch.inference_mode():
            return np.array([accuracy(self._logits(encoder, z[position[t.indices]], t), t) for t in tasks])

    def _logits(self, encoder: Encoder, z: Tensor, episode: Episode) -> Tensor:
        """Compute the logits of an episode from the embeddings of its examples, in the order of ``episode.indices``."""
        ways, shots = episode.support.shape
        z = mapped(encoder, z)
        support, query = z[: ways * shots].view(ways, shots, -1), z[ways * shots :]
        return self.evaluation_logits(encoder, support, query, self.form(encoder))


def mapped(encoder: Encoder, z: Tensor) -> Tensor:
    """Return embeddings ``[..., D]`` after the head that was fitted to the encoder, if there is one."""
    head = getattr(encoder.learned, "head", None)
    return z if head is None else head(z)
