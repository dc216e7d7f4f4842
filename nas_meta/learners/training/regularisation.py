"""Regularisation that works with every learner: word noise, adversarial training and distillation.

It acts on the two things that all learners share: on :meth:`Encoder.embed` in training mode, and on the loss.
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
    """The regularisation that ``learner.training`` configures, applied to one encoder.

    Learners call :meth:`backward` instead of ``loss.backward()``.

    Args:
        encoder: The encoder that is trained.
        options: The training options.

    Raises:
        TrialError: Adversarial training is on, and the model has no token embeddings.
    """

    def __init__(self, encoder: Encoder, options: TrainingOptions):
        self.encoder, self.options = encoder, options
        self.distances: list[Tensor] = []
        self.adversary = None if options.adversarial == "none" else Adversary(token_table(encoder.model), options)

    def backward(self, loss_of: Loss, share: float = 1.0) -> float:
        """Add the gradients of ``share`` times the regularised loss to the parameters' ``grad``.

        Args:
            loss_of: Computes the scalar loss; called several times in adversarial training.
            share: Weight of this loss, such as one over the size of the meta-batch.

        Returns:
            ``share`` times the loss without regularisation.
        """
        if self.adversary is not None:
            return self.adversary.backward(lambda: self._guided(loss_of), share)
        loss, total = self._guided(loss_of)
        (share * total).backward()
        return share * loss.item()

    def _guided(self, loss_of: Loss) -> tuple[Tensor, Tensor]:
        """Compute the loss without and with the distance to the teacher."""
        self.distances.clear()
        loss = loss_of()
        if not self.distances:
            return loss, loss
        return loss, loss + self.options.distill.weight * torch.stack(self.distances).mean()

    def inputs(self, pool: Pool, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return a batch of texts with words dropped, swapped and replaced; takes the place of :meth:`Pool.batch`.

        Args:
            pool: The texts.
            indices: ``[B]``, the texts of the batch.

        Returns:
            Token ids and attention mask, both ``[B, longest]``.
        """
        o = self.options
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        return augment(pool, indices, o.word_dropout, o.word_swap, o.synonyms, rng)

    def observe(self, z: Tensor, pool: Pool, indices: np.ndarray) -> None:
        """Record the distance between embeddings and the teacher's.

        Args:
            z: ``[B, D]``, the embeddings of the encoder.
            pool: The examples, with the teacher's embeddings.
            indices: ``[B]``, the examples.
        """
        self.distances.append(teacher_distance(z, torch.from_numpy(pool.teacher[indices]).to(z)))


@contextmanager
def regularise(encoder: Encoder, options: TrainingOptions) -> Iterator[Regularisation]:
    """Apply regularisation to an encoder inside the ``with`` block; restore the encoder on exit.

    Args:
        encoder: The encoder that is trained.
        options: The training options.

    Yields:
        The regularisation, which computes gradients.

    Raises:
        TrialError: Adversarial training is on, and the model has no token embeddings.
    """
    regularisation = Regularisation(encoder, options)
    if options.word_dropout or options.word_swap or options.synonyms:
        encoder.inputs_of = regularisation.inputs
    # Word noise and the norm of an adversarial perturbation are per text, which a packed row would mix.
    encoder.one_text_a_row = encoder.inputs_of is not None or regularisation.adversary is not None
    if options.distill.weight:
        encoder.observe = regularisation.observe
    try:
        yield regularisation
    finally:
        encoder.inputs_of = encoder.observe = None
        encoder.one_text_a_row = False
        if regularisation.adversary is not None:
            regularisation.adversary.close()


def teacher_distance(z: Tensor, teacher: Tensor) -> Tensor:
    """Compute the distance between embeddings and the teacher's embeddings of the same examples.

    If the widths are equal, it is the mean of 1 - cos(z_i, t_i). Otherwise it is the mean squared difference between
    the two matrices of pairwise cosines (Tung and Mori 2019, "Similarity-Preserving Knowledge Distillation",
    equation 4).

    Args:
        z: ``[B, D]``, the embeddings.
        teacher: ``[B, E]``, the teacher's embeddings.

    Returns:
        A scalar, at least 0.
    """
    z, teacher = F.normalize(z, dim=-1), F.normalize(teacher, dim=-1)
    if z.shape == teacher.shape:
        return (1 - (z * teacher).sum(-1)).mean()
    return (z @ z.T - teacher @ teacher.T).square().mean()


def token_table(model: nn.Module) -> nn.Embedding:
    """Return the model's token embeddings: its embedding table with the most rows.

    Args:
        model: The model.

    Raises:
        TrialError: The model has no embedding table.
    """
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if not tables:
        raise TrialError(
            "learner.training.adversarial perturbs token embeddings, but the model has none; expected adversarial: none"
        )
    return max(tables, key=lambda table: table.num_embeddings)
