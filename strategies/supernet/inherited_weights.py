"""Scores sub-networks of a trained supernet with the weights that they inherit from it, without further training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from nas_meta import Architecture, SearchSpace, Supernet
from nas_meta.evaluation.trial import Evaluation
from nas_meta.models.encoder import Encoder
from nas_meta.models.inputs import example_inputs
from nas_meta.models.profiling import flops, interval95, parameters
from nas_meta.tasks.episodes import EpisodeShape
from nas_meta.tasks.pool import Pool, Tasks

VALIDATION = "meta-validation"
METRICS = ("accuracy", "accuracy_ci95", "params", "flops")
"""The metrics of a sub-network that are known without training it."""


@runtime_checkable
class Sharing(Protocol):
    """A supernet that can reuse computations that sub-networks have in common."""

    def sharing(self) -> AbstractContextManager[None]:
        """Return a context in which the selected sub-networks share computations; weights must not change in it."""
        ...


def supernet_encoder(evaluation: Evaluation, supernet: Supernet) -> Encoder:
    """Return an encoder with the supernet as its model.

    Args:
        evaluation: The evaluation whose pooling the encoder uses.
        supernet: The supernet.

    Returns:
        The encoder. It packs several texts into a row if the models that are extracted from the supernet support that.
    """
    encoder = evaluation.encoder(supernet)
    model = supernet.extract(evaluation.space.sample(np.random.default_rng(0)))
    if hasattr(supernet, "config"):
        encoder.packs_from = Encoder(model, evaluation.pooling).packs_from
    return encoder


def size_of(space: SearchSpace, supernet: Supernet, architecture: Architecture, tokens: int) -> dict[str, float]:
    """Return the size of an architecture, counted by the space if it can, otherwise measured on the extracted model.

    Args:
        space: The search space.
        supernet: The supernet.
        architecture: The architecture.
        tokens: The length of the text for which FLOPs are counted.

    Returns:
        ``params`` and ``flops``.
    """
    counts = dict(space.counts(architecture, tokens))
    if not {"params", "flops"} <= counts.keys():
        model = supernet.extract(architecture)
        counts = {"params": parameters(model), "flops": flops(model, example_inputs(space, 1, tokens)), **counts}
    return {name: counts[name] for name in ("params", "flops")}


class Inherited:
    """Scores sub-networks of a trained supernet: many of them quickly, or few as precisely as trials.

    Args:
        evaluation: The evaluation of the trials.
        supernet: The trained supernet.
        encoder: The encoder of the supernet (:func:`supernet_encoder`).
        texts: The number of texts of each meta-validation class that :meth:`first` uses.
    """

    def __init__(self, evaluation: Evaluation, supernet: Supernet, encoder: Encoder, texts: int):
        self.evaluation, self.supernet, self.encoder = evaluation, supernet, encoder
        pool = evaluation.tasks[VALIDATION]
        sample = subsample(pool, texts, evaluation.shape, evaluation.settings.seed)
        self._quick = replace(evaluation, tasks=Tasks({VALIDATION: sample}))

    def first(self, architectures: Sequence[Architecture]) -> Iterator[tuple[int, dict[str, float]]]:
        """Score sub-networks quickly: on as many episodes as a trial, but of few texts, each embedded once.

        Args:
            architectures: The sub-networks.

        Yields:
            The index and the metrics of each sub-network. Those that agree in their first choices follow each other, so
            that :meth:`sharing` saves most.
        """
        return self._scored(self._quick, architectures)

    def second(self, architectures: Sequence[Architecture]) -> Iterator[tuple[int, dict[str, float]]]:
        """Score sub-networks on the episodes of the trials: the result of a trial that does not train.

        Args:
            architectures: The sub-networks.

        Yields:
            The index and the metrics of each sub-network, in the order of :meth:`first`.
        """
        return self._scored(self.evaluation, architectures)

    def _scored(
        self, evaluation: Evaluation, architectures: Sequence[Architecture]
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """The index and metrics of each architecture, sorted so that shared prefixes of choices are adjacent."""
        for i in sorted(range(len(architectures)), key=lambda i: self._value_indices(architectures[i])):
            yield i, self._metrics(evaluation, architectures[i])

    def sharing(self) -> AbstractContextManager[None]:
        """Return a context in which sub-networks share computations, if the supernet supports it.

        The weights must not change in the context.
        """
        return self.supernet.sharing() if isinstance(self.supernet, Sharing) else nullcontext()

    def _metrics(self, evaluation: Evaluation, architecture: Architecture) -> dict[str, float]:
        """The ``METRICS`` of one sub-network."""
        self.supernet.select(architecture)
        scores = evaluation.accuracies(self.encoder, VALIDATION, evaluation.settings.episodes)
        size = size_of(evaluation.space, self.supernet, architecture, evaluation.settings.flops_tokens)
        return {"accuracy": float(scores.mean()), "accuracy_ci95": interval95(scores), **size}

    def _value_indices(self, architecture: Architecture) -> list[int]:
        """The index of each choice's value, in the order of the space; -1 for choices without effect."""
        table: Mapping = self.evaluation.space.table
        return [
            list(choice.values).index(architecture[name]) if name in architecture.values else -1
            for name, choice in table.items()
        ]


def subsample(pool: Pool, texts: int, shape: EpisodeShape, seed: int) -> Pool:
    """Return a pool with few texts of each class, drawn at random.

    Args:
        pool: The whole pool.
        texts: The number of texts to keep of each class. If an episode needs more, as many are kept as it needs.
        shape: The shape of the episodes.
        seed: The seed of the draw.

    Returns:
        The pool, in which the other texts have the label -1.
    """
    rng = np.random.default_rng(seed)
    labels = np.full_like(pool.labels, -1)
    for label, members in enumerate(pool.members):
        count = min(len(members), max(texts, shape.shots + shape.queries))
        labels[rng.choice(members, count, replace=False)] = label
    if pool.name_rows is not None:
        labels[pool.name_rows] = np.arange(len(pool.name_rows))
    return replace(pool, labels=labels)
