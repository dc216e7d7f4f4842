"""What a classifier needs of a model, whichever library runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from nas_meta.errors import ConfigError
from nas_meta.evaluation.calibration import Calibration
from nas_meta.tasks.examples import Example

Progress = Callable[[int], None]
"""Called with the number of examples that are done."""


class ExampleChecks(Protocol):
    """How the examples of a model are checked; see :class:`nas_meta.outputs.classifier.examples.Preparation`."""

    @property
    def modality(self) -> str:
        """``text``, ``image`` or ``image-text``."""

    @property
    def class_names(self) -> bool:
        """Whether the model was trained with the names of classes as support examples."""

    def checked(self, examples: Iterable[Any], name: str) -> list[Example]:
        """Return examples that the model takes; ``name`` is the argument's, for error messages."""


class Parts(Protocol):
    """A trained model with its learner: in torch (``ModelParts``) or as an ONNX graph (``OnnxParts``).

    :class:`nas_meta.outputs.classifier.adaptation.ModelParts` documents the methods.
    """

    @property
    def name(self) -> str:
        """Name of the learner."""

    @property
    def preparation(self) -> ExampleChecks:
        """How examples are checked."""

    @property
    def calibration(self) -> Calibration | None:
        """What the model learned about its own scores; None for models that are not calibrated."""

    @property
    def embeds(self) -> bool:
        """Whether the learner classifies from embeddings, which the classifier then keeps instead of examples."""

    @property
    def comparison(self) -> Mapping[str, Any] | None:
        """How embeddings are compared (:mod:`nas_meta.outputs.onnx.comparison`); None without a closed form."""

    @property
    def width(self) -> int:
        """Length of an embedding."""

    def check_ways(self, classes: int) -> None:
        """Raise ConfigError if the learner cannot distinguish as many classes."""

    def check_refinement(self) -> None:
        """Raise ConfigError if unlabelled examples cannot refine the classes."""

    def fingerprint(self) -> str:
        """Return a digest of all that decides predictions besides the support set."""

    def embed(self, examples: Sequence[Example], batch_size: int, progress: Progress | None) -> np.ndarray:
        """Return embeddings ``[M, D]``."""

    def logits(
        self, support: np.ndarray, labels: np.ndarray, ways: int, queries: np.ndarray, unlabelled: np.ndarray | None
    ) -> np.ndarray:
        """Return logits ``[M, N]`` of query embeddings."""

    def adapted_logits(
        self, support: Sequence[Example], labels: np.ndarray, classes: Sequence[str], queries: Sequence[Example],
        progress: Progress | None,
    ) -> np.ndarray:  # fmt: skip
        """Return logits ``[M, N]`` of a learner that adapts the model itself."""


def refuse_refinement(learner: str) -> ConfigError:
    """Return the error for a learner that cannot use unlabelled examples.

    Args:
        learner: Name of the learner.
    """
    return ConfigError(
        f"the learner '{learner}' cannot use unlabelled examples, because it has no prototypes to refine; "
        "expected a model of the learner protonet, or fit without unlabelled and predict without together"
    )
