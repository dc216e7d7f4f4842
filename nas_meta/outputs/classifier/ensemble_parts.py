"""Several models as one: each classifies on its own, and their calibrated probabilities are averaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nas_meta.errors import ConfigError
from nas_meta.evaluation.calibration import Calibration
from nas_meta.evaluation.ensemble import SMALLEST, average
from nas_meta.outputs.classifier.classifier import softmax
from nas_meta.outputs.classifier.parts import ExampleChecks, Parts, Progress
from nas_meta.outputs.ensemble.description import ENSEMBLE, read_ensemble
from nas_meta.tasks.examples import Example


@dataclass(frozen=True)
class EnsembleParts:
    """Models that average their probabilities, with the interface of one model.

    An embedding is that of every member, one after the other. Logits are logarithms of averaged probabilities, so that
    their softmax is the average.

    Attributes:
        members: The models, at least one; all from one run.
        weights: Weight of each.
        temperatures: For each, by number of classes, what its logits are divided by.
    """

    members: Sequence[Parts]
    weights: Sequence[int]
    temperatures: Sequence[dict[int, float]]

    @property
    def name(self) -> str:
        """Name of the learner, for error messages."""
        return self.members[0].name

    @property
    def preparation(self) -> ExampleChecks:
        """How examples are checked, which is the same for all members."""
        return self.members[0].preparation

    @property
    def calibration(self) -> Calibration | None:
        """None: the probabilities of the members are calibrated before they are averaged."""
        return None

    @property
    def comparison(self) -> None:
        """No closed form: probabilities, not scores, are averaged."""
        return None

    @property
    def embeds(self) -> bool:
        """Whether all members classify from embeddings."""
        return all(member.embeds for member in self.members)

    @cached_property
    def width(self) -> int:
        """Length of the embeddings of all members together."""
        return sum(member.width for member in self.members)

    def check_ways(self, classes: int) -> None:
        """Check that every member can distinguish a number of classes.

        Args:
            classes: Number of classes.

        Raises:
            ConfigError: A learner was meta-trained for fewer classes.
        """
        for member in self.members:
            member.check_ways(classes)

    def check_refinement(self) -> None:
        """Check that unlabelled examples can refine the classes.

        Raises:
            ConfigError: A member has no prototypes.
        """
        for member in self.members:
            member.check_refinement()

    def fingerprint(self) -> str:
        """Return a digest of the members, their weights and temperatures."""
        digest = hashlib.sha256()
        for member, weight, temperatures in zip(self.members, self.weights, self.temperatures, strict=True):
            digest.update(f"{member.fingerprint()} {weight} {sorted(temperatures.items())}\n".encode())
        return digest.hexdigest()

    def embed(self, examples: Sequence[Example], batch_size: int, progress: Progress | None) -> np.ndarray:
        """Embed examples with every member.

        Args:
            examples: The examples.
            batch_size: Approximate number of examples per call of a model.
            progress: Called with the number of examples that all members have embedded.

        Returns:
            ``[M, D]``, where D is the sum of the members' widths.
        """
        *others, last = self.members
        found = [member.embed(examples, batch_size, None) for member in others]
        return np.concatenate([*found, last.embed(examples, batch_size, progress)], axis=1)

    def logits(
        self, support: np.ndarray, labels: np.ndarray, ways: int, queries: np.ndarray, unlabelled: np.ndarray | None
    ) -> np.ndarray:
        """Classify embeddings with every member and average.

        Args:
            support: ``[S, D]`` embeddings.
            labels: ``[S]``, the class of each.
            ways: N, the number of classes.
            queries: ``[M, D]`` embeddings.
            unlabelled: ``[U, D]`` embeddings that refine the classes; None without any.

        Returns:
            ``[M, N]``, logarithms of averaged probabilities.
        """
        parts = [self._split(z) for z in (support, queries)]
        extra = [None] * len(self.members) if unlabelled is None else self._split(unlabelled)
        found = [
            member.logits(s, labels, ways, q, u)
            for member, s, q, u in zip(self.members, *parts, extra, strict=True)
        ]  # fmt: skip
        return self._averaged(found, ways)

    def adapted_logits(
        self, support: Sequence[Example], labels: np.ndarray, classes: Sequence[str], queries: Sequence[Example],
        progress: Progress | None,
    ) -> np.ndarray:  # fmt: skip
        """Adapt every member to a support set, classify, and average.

        Args:
            support: The support examples.
            labels: ``[support]``, the class of each.
            classes: Names of the classes.
            queries: Examples to classify.
            progress: Called with the number of examples that all members have classified.

        Returns:
            ``[queries, classes]``, logarithms of averaged probabilities.
        """
        last = len(self.members) - 1
        found = [
            member.adapted_logits(support, labels, classes, queries, progress if i == last else None)
            for i, member in enumerate(self.members)
        ]
        return self._averaged(found, len(classes))

    def _split(self, z: np.ndarray) -> list[np.ndarray]:
        """Return the embeddings of each member."""
        ends = np.cumsum([member.width for member in self.members])[:-1]
        return [np.ascontiguousarray(part) for part in np.split(z, ends, axis=1)]

    def _averaged(self, logits: Sequence[np.ndarray], ways: int) -> np.ndarray:
        """Return the logarithms of the average of the members' calibrated probabilities."""
        divisors = [Calibration({}, temperatures).temperature(ways) for temperatures in self.temperatures]
        probabilities = np.stack([softmax(found / t) for found, t in zip(logits, divisors, strict=True)])
        return np.log(np.maximum(average(probabilities, np.array(self.weights)), SMALLEST))


def parts_of_ensemble(folder: Path, load: Callable[[Path], Parts]) -> EnsembleParts:
    """Load the members of an ensemble.

    Args:
        folder: Folder that ``nas-meta ensemble`` wrote.
        load: Loads the model of an exported folder.

    Returns:
        The ensemble.

    Raises:
        ConfigError: The folder is damaged, or a member cannot be loaded.
    """
    members = read_ensemble(folder).members
    for member in members:
        if (folder / member.folder / ENSEMBLE).exists():
            raise ConfigError(f"{folder / member.folder} is an ensemble itself; expected the folder of one model")
    return EnsembleParts(
        [load(folder / member.folder) for member in members],
        [member.weight for member in members],
        [member.temperatures for member in members],
    )
