"""The pre-training stage of a trial: after a candidate is built and before it is meta-trained."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from nas_meta.errors import ConfigError, TrialError
from nas_meta.evaluation.pretraining.loop import make_loss, pretrain
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.evaluation.pretraining.weight_inheritance import inherit, match_names
from nas_meta.evaluation.progress import Progress
from nas_meta.models.compute import Compute
from nas_meta.models.state import deserialize_state, serialize_state
from nas_meta.space.architecture import Architecture
from nas_meta.tasks.corpus.token_store import TokenStore


@dataclass(frozen=True)
class Pretraining:
    """Pre-training of candidates; equal architectures with equal seeds and donors get equal weights.

    An instance is sent to every worker once.

    Attributes:
        section: The options of the pre-training.
        corpus: The tokenised corpus.
        pooling: How the token states of a text become one embedding, for ``simcse`` and ``smlmt``.
        base: Weights of a pretrained model (safetensors) for candidates without a donor; None without one.
        table: Name of the token embeddings in ``base``.
    """

    section: PretrainingSection
    corpus: TokenStore
    pooling: str = "mean"
    base: np.ndarray | None = field(default=None, repr=False)
    table: str | None = None

    def key(self, architecture: Architecture, seed: int, donor: str | None) -> str:
        """Return a hash that identifies the pre-trained weights of a candidate within a run.

        Args:
            architecture: The architecture without hyperparameters that are searched with it.
            seed: Seed of the trial.
            donor: Key of the weights that the candidate inherits; None without a donor.

        Returns:
            32 hexadecimal digits.
        """
        section = self.section.model_dump_json(exclude={"corpus", "field", "keep", "checkpoint_every"})
        identity = (architecture.canonical, section, self.corpus.key, self.pooling, seed, donor)
        return hashlib.sha256(repr(identity).encode()).hexdigest()[:32]

    def inherited(self, model: nn.Module, donor: np.ndarray | None) -> float | None:
        """Copy the weights of a donor, or else of the pretrained model ``base``, into a model.

        Args:
            model: The model that gets the weights, in place.
            donor: Weights of the donor (safetensors); None without a donor.

        Returns:
            The share of the model's weights that were copied, from 0 to 1; None without a donor and without ``base``.
        """
        if donor is not None:
            return inherit(model, deserialize_state(bytes(donor)))
        if self.base is not None:
            return inherit(model, match_names(model, deserialize_state(bytes(self.base)), self.table))
        return None

    def __call__(
        self, model: nn.Module, seed: int, compute: Compute, donor: np.ndarray | None = None
    ) -> Generator[Progress, None, float]:
        """Pre-train a model in place.

        Args:
            model: The model of a candidate, on its device.
            seed: Seed of the head, of the order of the corpus, of the masked tokens and of dropout. With a donor, all
                but the head also depend on the donor's weights.
            compute: Precision, compilation and gradient checkpointing.
            donor: Weights of the candidate to inherit from (safetensors); None without a donor.

        Returns:
            The seconds that the training took.

        Yields:
            The progress every few steps; the last one holds the pre-trained weights.

        Raises:
            TrialError: The model does not fit the objective, or its loss is not finite.
        """
        share = self.inherited(model, donor)
        inherited = {} if share is None else {"pretrain/inherited": share}
        # The head must not depend on how many random numbers the space has drawn to build the model.
        torch.manual_seed(seed)
        try:
            objective = make_loss(model, self.corpus, self.section, self.pooling)
        except ConfigError as error:
            raise TrialError(str(error)) from error
        seconds = 0.0
        # A candidate that inherits weights gets another data order; repeating the donor's batches would only memorise
        # them.
        data_seed = seed if donor is None else zlib.crc32(donor, seed)
        for status in pretrain(model, objective, self.corpus, self.section, data_seed, compute):
            seconds = status.seconds
            values = {**status.values(self.section), **inherited}
            yield Progress(
                status.step, values, pretraining=True, pretrained=serialize_state(model) if status.over else None
            )
        return seconds
