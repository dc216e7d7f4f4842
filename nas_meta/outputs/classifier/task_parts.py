"""The model of one task, which ``nas-meta adapt`` wrote, as a classifier whose classes are fixed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.core.files import regular_file
from nas_meta.errors import ConfigError
from nas_meta.outputs.classifier.adaptation import ModelParts
from nas_meta.outputs.classifier.classifier import Fitted
from nas_meta.outputs.classifier.parts import ExampleChecks, Progress, refuse_refinement
from nas_meta.outputs.classifier.torch_model import parts_of_folder
from nas_meta.outputs.export.exported_model import CONFIG
from nas_meta.outputs.export.task_model import HEAD, LABELS
from nas_meta.tasks.examples import Example

if TYPE_CHECKING:
    from nas_meta.evaluation.calibration import Calibration

BATCH = 64
MOST_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class TaskParts:
    """A model with a linear head for the classes of one task.

    Attributes:
        model: The adapted model; its learner is not used.
        weight: ``[N, D]``, weight of the head on embeddings of unit norm.
        bias: ``[N]``.
        folder: The folder, for error messages.
    """

    model: ModelParts
    weight: np.ndarray
    bias: np.ndarray
    folder: Path

    name = "metanas"
    embeds = False  # there are no support examples to compare with
    calibration: Calibration | None = None
    comparison = None

    @property
    def preparation(self) -> ExampleChecks:
        """How examples are checked."""
        return self.model.preparation

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.weight.shape[1]

    def check_ways(self, classes: int) -> None:
        """Refuse other classes, whatever their number.

        Args:
            classes: Number of classes.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{self.folder} was adapted to the {len(self.bias)} classes of one task and cannot be fitted to others; "
            "expected predict without fit, or 'nas-meta adapt' with the other examples"
        )

    def check_refinement(self) -> None:
        """Refuse unlabelled examples.

        Raises:
            ConfigError: Always.
        """
        raise refuse_refinement(self.name)

    def fingerprint(self) -> str:
        """Return a digest of the model and its head."""
        head = self.weight.tobytes() + self.bias.tobytes()
        return hashlib.sha256(self.model.fingerprint().encode() + head).hexdigest()

    def embed(self, examples: Sequence[Example], batch_size: int, progress: Progress | None) -> np.ndarray:
        """Return embeddings ``[M, D]``; see :meth:`ModelParts.embed`."""
        return self.model.embed(examples, batch_size, progress)

    def logits(
        self, support: np.ndarray, labels: np.ndarray, ways: int, queries: np.ndarray, unlabelled: np.ndarray | None
    ) -> np.ndarray:
        """Return the head's logits ``[M, N]`` of query embeddings; the support set is not used."""
        norms = np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
        return queries / norms @ self.weight.T + self.bias

    def adapted_logits(
        self, support: Sequence[Example], labels: np.ndarray, classes: Sequence[str], queries: Sequence[Example],
        progress: Progress | None,
    ) -> np.ndarray:  # fmt: skip
        """Return the head's logits ``[M, N]`` of queries; the support set is not used."""
        z = self.embed(queries, BATCH, progress)
        return self.logits(z[:0], labels[:0], len(classes), z, None)


def load_task_model(folder: Path, device: str | None, allow_plugins: bool) -> tuple[TaskParts, Fitted]:
    """Load the folder of a task model.

    Args:
        folder: Folder that ``nas-meta adapt`` wrote.
        device: ``cpu`` or ``cuda``; None follows the config.
        allow_plugins: Whether the code of plugin files that the model names may be run.

    Returns:
        The model, and the classes of its task.

    Raises:
        ConfigError: The folder is damaged, or an earlier version wrote it, without a config.
        PluginError: The model needs the code of a plugin file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{folder} is the model of one task without {CONFIG}, which an earlier version wrote; expected a folder of "
            "this version: run 'nas-meta adapt' again, or use the code in its README.md"
        )
    model = parts_of_folder(folder, device, allow_plugins)
    try:
        names = json.loads(regular_file(folder / LABELS, MOST_BYTES).read_text(encoding="utf-8"))
        head = load_file(regular_file(folder / HEAD))
        weight, bias = head["weight"].astype(np.float32), head["bias"].astype(np.float32)
        fits = (
            isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) for name in names)
            and weight.shape == (len(names), model.width) and bias.shape == (len(names),)
        )  # fmt: skip
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ConfigError(f"{folder} is damaged; expected what 'nas-meta adapt' wrote") from error
    if not fits:
        raise ConfigError(f"{folder} is damaged: {HEAD} and {LABELS} do not fit; expected what 'nas-meta adapt' wrote")
    return TaskParts(model, weight, bias, folder), Fitted(names, np.arange(len(names)))
