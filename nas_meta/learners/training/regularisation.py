"""What disturbs or guides every learner's training alike: noisy texts, mixed embeddings, adversaries, a teacher.

It acts where all learners meet, in :meth:`Encoder.embed` while it trains, and on the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_meta.errors import TrialError
from nas_meta.learners.training.adversary import Adversary
from nas_meta.learners.training.options import TrainingOptions
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.augmentation import augment
from nas_meta.tasks.pool import Pool

Loss = Callable[[], Tensor]


class Regularisation:
    """The switches of ``learner.training`` at work on one encoder; :meth:`backward` stands for ``loss.backward()``."""

    def __init__(self, encoder: Encoder, options: TrainingOptions):
        self.encoder, self.options = encoder, options
        self.distances: list[Tensor] = []
        self.adversary = None if options.adversarial == "none" else Adversary(token_table(encoder.model), options)

    def backward(self, loss_of: Loss, share: float = 1.0) -> float:
        """Adds the gradient of ``share`` · loss to what the parameters have; returns that loss, the bare one."""
        if self.adversary is not None:
            return self.adversary.backward(lambda: self._guided(loss_of), share)
        loss, total = self._guided(loss_of)
        (share * total).backward()
        return share * loss.item()

    def _guided(self, loss_of: Loss) -> tuple[Tensor, Tensor]:
        self.distances.clear()
        loss = loss_of()
        if not self.distances:
            return loss, loss
        return loss, loss + self.options.distill * torch.stack(self.distances).mean()

    def inputs(self, pool: Pool, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """In the place of :meth:`Pool.batch`: the texts with words dropped, swapped and replaced."""
        o = self.options
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        return augment(pool, indices, o.word_dropout, o.word_swap, o.synonyms, rng)

    def embeddings(self, z: Tensor, pool: Pool, indices: np.ndarray) -> Tensor:
        """The embeddings that the learner sees; their distance to the teacher's is noted."""
        if self.options.distill:
            self.distances.append(teacher_distance(z, torch.from_numpy(pool.teacher[indices]).to(z)))
        return mixup(z, self.options.mixup) if self.options.mixup else z


@contextmanager
def regularise(encoder: Encoder, options: TrainingOptions) -> Iterator[Regularisation]:
    """Regularisation while an encoder trains; afterwards the encoder is as it was."""
    regularisation = Regularisation(encoder, options)
    if options.word_dropout or options.word_swap or options.synonyms:
        encoder.inputs_of = regularisation.inputs
    # Words are changed, and an adversary's disturbance is measured, text by text.
    encoder.one_text_a_row = encoder.inputs_of is not None or regularisation.adversary is not None
    if options.distill or options.mixup:
        encoder.changed = regularisation.embeddings
    try:
        yield regularisation
    finally:
        encoder.inputs_of = encoder.changed = None
        encoder.one_text_a_row = False
        if regularisation.adversary is not None:
            regularisation.adversary.close()


def mixup(z: Tensor, alpha: float) -> Tensor:
    """λz_i + (1 - λ)z_j with j random and λ = max(λ', 1 - λ'), λ' ~ Beta(α, α), for every row of ``[B, D]``.

    Mixup (Zhang et al. 2018, equation 1) of embeddings; the larger share keeps its own label, as in MixMatch (Berthelot
    et al. 2019, equation 11), so that it serves every learner.
    """
    share = torch.distributions.Beta(alpha, alpha).sample((len(z), 1)).to(z)
    share = torch.maximum(share, 1 - share)
    return share * z + (1 - share) * z[torch.randperm(len(z), device="cpu").to(z.device)]


def teacher_distance(z: Tensor, teacher: Tensor) -> Tensor:
    """How far embeddings ``[B, D]`` are from the teacher's ``[B, E]``.

    Of one width: 1 - cos(z_i, t_i), in the mean. Else the mean squared difference of the two matrices of cosines
    between the texts (Tung and Mori 2019, "Similarity-Preserving Knowledge Distillation", equation 4).
    """
    z, teacher = F.normalize(z, dim=-1), F.normalize(teacher, dim=-1)
    if z.shape == teacher.shape:
        return (1 - (z * teacher).sum(-1)).mean()
    return (z @ z.T - teacher @ teacher.T).square().mean()


def token_table(model: nn.Module) -> nn.Embedding:
    """The model's table of token embeddings: its largest one.

    Raises:
        TrialError: it has none.
    """
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if not tables:
        raise TrialError("learner.training.adversarial disturbs token embeddings, but the model has no such table")
    return max(tables, key=lambda table: table.num_embeddings)
