"""Adapt a model's learner to a support set and classify other examples: the learners' own code, for every learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas_meta.errors import ConfigError, TrialError
from nas_meta.learners.base import Learner
from nas_meta.learners.metric import MetricLearner, mapped
from nas_meta.learners.protonet import ProtoNet
from nas_meta.learners.support import UserTask, balanced_rows
from nas_meta.models.encoder import Encoder
from nas_meta.outputs.classifier.examples import Preparation
from nas_meta.tasks.examples import Example

if TYPE_CHECKING:
    from nas_meta.evaluation.calibration import Calibration

CHUNK = 1024  # queries that a learner classifies at a time
Progress = Callable[[int], None]
"""Called with the number of examples that are done."""


@dataclass(frozen=True)
class ModelParts:
    """A trained model with everything that classification needs.

    Attributes:
        encoder: The model with its pooling and what the learner learned.
        learner: The learner.
        preparation: How examples are prepared.
        ways: Classes of an episode in meta-training, which some learners cannot exceed.
        name: Name of the learner, for error messages.
        calibration: What the model learned about its own scores; None for models that are not calibrated.
    """

    encoder: Encoder
    learner: Learner
    preparation: Preparation
    ways: int
    name: str
    calibration: Calibration | None = None

    @property
    def embeds(self) -> bool:
        """Whether the learner classifies from embeddings, which the classifier then keeps instead of examples."""
        return isinstance(self.learner, MetricLearner)

    def check_ways(self, classes: int) -> None:
        """Check that the learner can distinguish a number of classes.

        Args:
            classes: Number of classes.

        Raises:
            ConfigError: The learner was meta-trained for fewer classes.
        """
        if not self.learner.any_ways and classes > self.ways:
            raise ConfigError(
                f"there are {classes} classes, but the learner '{self.name}' was meta-trained with a head of "
                f"{self.ways} classes; expected at most {self.ways}, a search with tasks.ways: {classes}, or a learner "
                "such as protonet"
            )

    def refiner(self) -> ProtoNet:
        """Return the learner if it can refine its classes with unlabelled examples.

        Raises:
            ConfigError: It has no prototypes.
        """
        if not isinstance(self.learner, ProtoNet):
            raise ConfigError(
                f"the learner '{self.name}' cannot use unlabelled examples, because it has no prototypes to refine; "
                "expected a model of the learner protonet, or fit without unlabelled and predict without together"
            )
        return self.learner


def embeddings(parts: ModelParts, examples: Sequence[Example], batch_size: int, progress: Progress | None) -> Tensor:
    """Embed examples in batches, and apply the head that was fitted to the model.

    Args:
        parts: The model.
        examples: The examples.
        batch_size: Approximate number of examples per call of the model.
        progress: Called after each chunk.

    Returns:
        ``[M, D]`` on the model's device.
    """
    parts.encoder.eval()
    done = []
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        pool = parts.preparation.pool(chunk, np.zeros(len(chunk), np.int64), ["unknown"])
        # Not in inference mode: gradient-based learners may train on tensors that were made here.
        with torch.no_grad():
            z = parts.encoder.embed(pool, np.arange(len(chunk)), batch_size)
            done.append(mapped(parts.encoder, z))
        if progress is not None:
            progress(start + len(chunk))
    return torch.cat(done)


def logits_by_adapting(
    parts: ModelParts, support: Sequence[Example], labels: np.ndarray, classes: Sequence[str],
    queries: Sequence[Example], progress: Progress | None,
) -> Tensor:  # fmt: skip
    """Adapt a learner that does not work on embeddings alone, and classify.

    Args:
        parts: The model.
        support: The support examples.
        labels: ``[support]``, the class of each.
        classes: Names of the classes.
        queries: Examples to classify.
        progress: Called after each chunk.

    Returns:
        Logits ``[queries, classes]``.

    Raises:
        TrialError: The learner returned something other than logits.
    """
    parts.encoder.eval()
    rows, done = balanced_rows(labels, len(classes)), []
    for start in range(0, len(queries), CHUNK):
        chunk = queries[start : start + CHUNK]
        unknown = np.zeros(len(chunk), np.int64)
        pool = parts.preparation.pool([*support, *chunk], np.concatenate([labels, unknown]), classes)
        task = UserTask(rows, len(support) + np.arange(len(chunk))[None])
        logits = parts.learner.classify(parts.encoder, pool, task).detach()[:, : len(classes)]
        if list(logits.shape) != [len(chunk), len(classes)]:
            raise TrialError(
                f"{type(parts.learner).__name__}.classify() returned {list(logits.shape)}; expected "
                f"{[len(chunk), len(classes)]}"
            )
        done.append(logits)
        if progress is not None:
            progress(start + len(chunk))
    return torch.cat(done)
