"""What a candidate goes through between being built and being meta-trained."""

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
from nas_meta.evaluation.pretraining.weight_inheritance import inherit, of_another_class
from nas_meta.evaluation.progress import Progress
from nas_meta.models.compute import Compute
from nas_meta.models.state import deserialize_state, serialize_state
from nas_meta.space.architecture import Architecture
from nas_meta.tasks.corpus.token_store import TokenStore


@dataclass(frozen=True)
class Pretraining:
    """Brief pre-training, the same for equal architectures. Travels to every worker once.

    Attributes:
        pooling: how a text becomes one embedding, for ``simcse``.
        base: weights of the pretrained model that those inherit from who have no other donor (safetensors).
        table: the name of its table of token embeddings.
    """

    section: PretrainingSection
    corpus: TokenStore
    pooling: str = "mean"
    base: np.ndarray | None = field(default=None, repr=False)
    table: str | None = None

    def key(self, architecture: Architecture, seed: int, donor: str | None) -> str:
        """A hash of all that the weights follow from, within a run.

        Args:
            architecture: as the space itself knows it.
            donor: the key of the weights that it inherits from.
        """
        section = self.section.model_dump_json(exclude={"corpus", "field", "keep", "checkpoint_every"})
        told = (architecture.canonical, section, self.corpus.key, self.pooling, seed, donor)
        return hashlib.sha256(repr(told).encode()).hexdigest()[:32]

    def inherited(self, model: nn.Module, donor: np.ndarray | None) -> float | None:
        """Gives a model the weights of a donor, or of the pretrained model; returns the share of it that they fill.

        None where there is neither.
        """
        if donor is not None:
            return inherit(model, deserialize_state(bytes(donor)))
        if self.base is not None:
            return inherit(model, of_another_class(model, deserialize_state(bytes(self.base)), self.table))
        return None

    def __call__(
        self, model: nn.Module, seed: int, compute: Compute, donor: np.ndarray | None = None
    ) -> Generator[Progress, None, float]:
        """Pre-trains a model in place, yielding now and then; returns the seconds that it took.

        Args:
            seed: of the order of the corpus, of masks and dropout; those of an heir follow from its donor, too.
            donor: weights of an architecture that was pre-trained before, from which it inherits (safetensors).

        Raises:
            TrialError: the model cannot learn so, or its loss is no number.
        """
        share = self.inherited(model, donor)
        inherited = {} if share is None else {"pretrain/inherited": share}
        torch.manual_seed(seed)  # of the head: a space may draw more numbers for its first architecture
        try:
            objective = make_loss(model, self.corpus, self.section, self.pooling)
        except ConfigError as error:
            raise TrialError(str(error)) from error
        seconds = 0.0
        # An heir reads on: the rows of its donor again, masked alike, would be learned by heart.
        order = seed if donor is None else zlib.crc32(donor, seed)
        for look in pretrain(model, objective, self.corpus, self.section, order, compute):
            seconds = look.seconds
            values = {**look.values(self.section), **inherited}
            yield Progress(
                look.step, values, pretraining=True, pretrained=serialize_state(model) if look.over else None
            )
        return seconds
