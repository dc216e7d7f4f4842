"""Training of a supernet over episodes by the sandwich rule, the largest sub-network teaching the others.

In every step the largest sub-network, a smallest one and some random ones see the same episodes and their gradients add
up (Yu et al. 2020, "BigNAS", section 3.1). Only the largest learns from the labels; the others learn from its
predictions at that moment, -Σ_k p_largest(k) log p(k) for each query example (in-place distillation, ibid.; Cai et al.
2020, "Once-for-All").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_meta import Architecture, SearchSpace, Supernet
from nas_meta.errors import ConfigError
from nas_meta.learners.base import Learner, LearnerOptions
from nas_meta.learners.metric import MetricLearner
from nas_meta.learners.training.regularisation import Regularisation
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool
from strategies.supernet.size_extremes import Size, largest, smallest


def check_learner(learner: Learner) -> MetricLearner:
    """The learner, if one pass over an episode is all that its loss needs.

    Raises:
        ConfigError: it moves weights on a support set, or has a loss of its own.
    """
    if isinstance(learner, MetricLearner) and type(learner).meta_loss is MetricLearner.meta_loss:
        return learner
    raise ConfigError(
        f"strategy 'supernet' trains all sub-networks on the embeddings of an episode, which {type(learner).__name__} "
        "does not learn from alone; expected a metric learner, such as protonet, ridge or matching"
    )


class Sandwich(Learner):
    """Meta-trains a supernet as its learner would a model, but each step with several sub-networks.

    Args:
        learner: whose loss, schedule and regularisation it is.
        options: those of the learner, with the supernet's number of steps and learning rate.
        draws: how many random sub-networks a step has.
        distil: whether the largest teaches; otherwise all learn from the labels.

    Attributes:
        losses: of the last step, by sub-network: ``largest``, ``smallest``, ``random``.
    """

    def __init__(
        self, learner: MetricLearner, options: LearnerOptions, space: SearchSpace, supernet: Supernet, size: Size,
        draws: int, distil: bool, seed: int,
    ):  # fmt: skip
        super().__init__(options)
        self.learner, self.space, self.supernet, self.size = learner, space, supernet, size
        self.draws, self.distil = draws, distil
        self.rng = np.random.default_rng(seed)
        self.largest = largest(space, size)
        self.losses: dict[str, float] = {}

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        return self.learner.meta_loss(encoder, pool, episode)

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        return self.learner.classify(encoder, pool, episode)

    def sub_networks(self) -> Iterator[tuple[str, Architecture]]:
        """Those of one step, by their role; the largest comes first."""
        yield "largest", self.largest
        yield "smallest", smallest(self.space, self.size, self.rng)
        for _ in range(self.draws):
            yield "random", self.space.sample(self.rng)

    def gradients(
        self, encoder: Encoder, pool: Pool, first: Sequence[Episode], regularisation: Regularisation
    ) -> Callable[[Sequence[Episode]], float]:
        share = 1 / (2 + self.draws)

        def add(tasks: Sequence[Episode]) -> float:
            losses: dict[str, list[float]] = {}
            taught: list[Tensor | None] = [None] * len(tasks)
            for role, architecture in self.sub_networks():
                self.supernet.select(architecture)
                pupil = role != "largest" and self.distil
                for i, task in enumerate(tasks):
                    loss_of, logits = self._loss_of(encoder, pool, task, taught[i] if pupil else None)
                    loss = regularisation.backward(loss_of, share / len(tasks))
                    losses.setdefault(role, []).append(loss * len(tasks) / share)
                    if role == "largest":
                        taught[i] = logits[0].softmax(1)
            self.losses = {role: float(np.mean(values)) for role, values in losses.items()}
            return self.losses["largest"]

        return add

    def _loss_of(
        self, encoder: Encoder, pool: Pool, task: Episode, taught: Tensor | None
    ) -> tuple[Callable[[], Tensor], list[Tensor]]:
        """The loss of what is selected, against labels or what was taught ``[M, N]``, and the logits behind it."""
        logits: list[Tensor] = []

        def loss_of() -> Tensor:
            logits[:] = [self._logits(encoder, pool, task)]
            target = torch.from_numpy(task.labels).to(logits[0].device) if taught is None else taught
            loss = F.cross_entropy(logits[0], target)
            logits[0] = logits[0].detach()
            return loss

        return loss_of, logits

    def _logits(self, encoder: Encoder, pool: Pool, task: Episode) -> Tensor:
        z = encoder.embed(pool, task.indices)
        ways, shots = task.support.shape
        return self.learner.logits(encoder, z[: ways * shots].view(ways, shots, -1), z[ways * shots :])
