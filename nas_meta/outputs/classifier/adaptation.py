"""Adapt a model's learner to a support set and classify other examples: the learners' own code, for every learner."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas_meta.errors import ConfigError, TrialError
from nas_meta.learners.balancing import balanced_rows
from nas_meta.learners.base import Learner
from nas_meta.learners.metric import MetricLearner, mapped
from nas_meta.learners.protonet import ProtoNet
from nas_meta.learners.support import UserTask
from nas_meta.models.encoder import Encoder
from nas_meta.outputs.classifier.examples import Preparation
from nas_meta.outputs.classifier.parts import Progress, refuse_refinement
from nas_meta.tasks.examples import Example

if TYPE_CHECKING:
    from nas_meta.evaluation.calibration import Calibration

CHUNK = 1024  # queries that a learner classifies at a time


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
            raise refuse_refinement(self.name)
        return self.learner

    def check_refinement(self) -> None:
        """Check that unlabelled examples can refine the classes.

        Raises:
            ConfigError: The learner has no prototypes.
        """
        self.refiner()

    def embed(self, examples: Sequence[Example], batch_size: int, progress: Progress | None) -> np.ndarray:
        """Embed examples, as :func:`embeddings` does.

        Args:
            examples: The examples.
            batch_size: Approximate number of examples per call of the model.
            progress: Called after each chunk.

        Returns:
            ``[M, D]``.
        """
        return embeddings(self, examples, batch_size, progress).float().cpu().numpy()

    def logits(
        self, support: np.ndarray, labels: np.ndarray, ways: int, queries: np.ndarray, unlabelled: np.ndarray | None
    ) -> np.ndarray:
        """Classify embeddings, as the learner does in evaluation.

        Args:
            support: ``[S, D]`` embeddings.
            labels: ``[S]``, the class of each.
            ways: N, the number of classes.
            queries: ``[M, D]`` embeddings.
            unlabelled: ``[U, D]`` embeddings that refine the classes; None without any.

        Returns:
            ``[M, N]``.
        """
        encoder, device = self.encoder, next(self.encoder.parameters()).device
        s, y, q = (torch.from_numpy(array).to(device) for array in (support, labels, queries))
        with torch.no_grad():
            if unlabelled is None:
                return self.learner.task_logits(encoder, s, y, ways, q).cpu().numpy()
            learner = self.refiner()
            prototypes = learner.refined(encoder, s, y, ways, torch.from_numpy(unlabelled).to(device))
            return learner.prototype_logits(encoder, prototypes, q).cpu().numpy()

    def adapted_logits(
        self, support: Sequence[Example], labels: np.ndarray, classes: Sequence[str], queries: Sequence[Example],
        progress: Progress | None,
    ) -> np.ndarray:  # fmt: skip
        """Adapt the model to a support set and classify, as :func:`logits_by_adapting` does.

        Args:
            support: The support examples.
            labels: ``[support]``, the class of each.
            classes: Names of the classes.
            queries: Examples to classify.
            progress: Called after each chunk.

        Returns:
            ``[queries, classes]``.
        """
        return logits_by_adapting(self, support, labels, classes, queries, progress).float().cpu().numpy()

    @property
    def comparison(self) -> Mapping[str, Any] | None:
        """How the learner compares embeddings; None if it does not adapt in closed form."""
        from nas_meta.outputs.onnx.learner import comparison_of

        try:
            return comparison_of(self)
        except ConfigError:
            return None

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.encoder.width

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that decides predictions besides the support set.

        That is the weights, the pooling, the learner and its options, and the length of texts.
        """
        digest = hashlib.sha256()
        options = self.learner.options.model_dump_json()
        preparation = self.preparation
        settings = [self.encoder.pooling, self.name, options, preparation.max_tokens, preparation.modality]
        digest.update(json.dumps(settings).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().float().numpy().tobytes())
        return digest.hexdigest()


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
    """Adapt a learner that does not work on embeddings alone, once, and classify.

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
    unknown = np.zeros(len(queries), np.int64)
    pool = parts.preparation.pool([*support, *queries], np.concatenate([labels, unknown]), classes)
    indices = len(support) + np.arange(len(queries))
    with parts.learner.adapting(parts.encoder, pool, UserTask(rows, indices[None])) as classify:
        for start in range(0, len(queries), CHUNK):
            chunk = indices[start : start + CHUNK]
            logits = classify(chunk).detach()[:, : len(classes)]
            if list(logits.shape) != [len(chunk), len(classes)]:
                raise TrialError(
                    f"{type(parts.learner).__name__}.classify() returned {list(logits.shape)}; expected "
                    f"{[len(chunk), len(classes)]}"
                )
            done.append(logits)
            if progress is not None:
                progress(start + len(chunk))
    return torch.cat(done)
