"""Meta-trains a supernet by the sandwich rule, with its largest sub-network as the teacher of the others.

In each step, the largest sub-network, a smallest one and some random ones are trained on the same episodes, and their
gradients are added up (Yu et al. 2020, "BigNAS", section 3.1). The largest learns from the labels. The others learn
from its current predictions, with the loss -Σ_k p_largest(k) log p(k) for each query example (in-place distillation,
ibid.; Cai et al. 2020, "Once-for-All").
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
    """Return a learner after checking that its loss needs only the embeddings of an episode.

    Args:
        learner: The learner of the search.

    Returns:
        The learner.

    Raises:
        ConfigError: The learner adapts weights to a support set, or overrides the loss of metric learners.
    """
    if isinstance(learner, MetricLearner) and type(learner).meta_loss is MetricLearner.meta_loss:
        return learner
    raise ConfigError(
        f"strategy 'supernet' needs a learner whose loss depends only on the embeddings of an episode, but "
        f"{type(learner).__name__} is not one; expected a metric learner, such as protonet, ridge or matching"
    )


class Sandwich(Learner):
    """Learner that trains a supernet like another learner trains a model, but several sub-networks in each step.

    Args:
        learner: Defines the loss and the classification.
        options: The learner's options, with the number of steps and the learning rate of the supernet.
        space: The search space.
        supernet: The supernet to train.
        size: The size of an architecture, by which the largest and the smallest sub-networks are found.
        draws: The number of random sub-networks per step.
        distil: Whether the largest sub-network teaches the others; otherwise all learn from the labels.
        seed: The seed of the random sub-networks.

    Attributes:
        losses: The mean losses of the last step by role: ``largest``, ``smallest`` and, if there are any, ``random``.
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
        """Draw the sub-networks of one step.

        Yields:
            The role and the architecture; the largest comes first, because it teaches the others.
        """
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
            teacher: list[Tensor | None] = [None] * len(tasks)  # predictions of the largest, [M, N] for each task
            for role, architecture in self.sub_networks():
                self.supernet.select(architecture)
                distilled = role != "largest" and self.distil
                for i, task in enumerate(tasks):
                    loss_of, logits = self._loss_of(encoder, pool, task, teacher[i] if distilled else None)
                    loss = regularisation.backward(loss_of, share / len(tasks))
                    losses.setdefault(role, []).append(loss * len(tasks) / share)
                    if role == "largest":
                        teacher[i] = logits[0].softmax(1)
            self.losses = {role: float(np.mean(values)) for role, values in losses.items()}
            return self.losses["largest"]

        return add

    def _loss_of(
        self, encoder: Encoder, pool: Pool, task: Episode, teacher: Tensor | None
    ) -> tuple[Callable[[], Tensor], list[Tensor]]:
        """The loss of the selected sub-network, and a list that holds its logits ``[M, N]`` once the loss was computed.

        The target is the teacher's prediction ``[M, N]``, or the labels without a teacher.
        """
        logits: list[Tensor] = []

        def loss_of() -> Tensor:
            logits[:] = [self._logits(encoder, pool, task)]
            target = torch.from_numpy(task.labels).to(logits[0].device) if teacher is None else teacher
            loss = F.cross_entropy(logits[0], target)
            logits[0] = logits[0].detach()
            return loss

        return loss_of, logits

    def _logits(self, encoder: Encoder, pool: Pool, task: Episode) -> Tensor:
        """Logits ``[M, N]`` of the query examples, by the selected sub-network."""
        z = encoder.embed(pool, task.indices)
        ways, shots = task.support.shape
        return self.learner.logits(encoder, z[: ways * shots].view(ways, shots, -1), z[ways * shots :])
