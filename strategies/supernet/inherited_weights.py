"""Sub-networks judged with the weights that they inherit from a supernet, without training of their own."""

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
"""What is known of a sub-network that was not trained."""


@runtime_checkable
class Sharing(Protocol):
    """A supernet that can keep what sub-networks have in common."""

    def sharing(self) -> AbstractContextManager[None]:
        """Within, weights do not change, and sub-networks that are selected may share what they compute."""
        ...


def supernet_encoder(evaluation: Evaluation, supernet: Supernet) -> Encoder:
    """The supernet with pooling, packing texts where the models that are extracted from it do."""
    encoder = evaluation.encoder(supernet)
    model = supernet.extract(evaluation.space.sample(np.random.default_rng(0)))
    if hasattr(supernet, "config"):
        encoder.packs_from = Encoder(model, evaluation.pooling).packs_from
    return encoder


def size_of(space: SearchSpace, supernet: Supernet, architecture: Architecture, tokens: int) -> dict[str, float]:
    """``params`` and ``flops`` of an architecture: counted where the space can, else measured."""
    counts = dict(space.counts(architecture, tokens))
    if not {"params", "flops"} <= counts.keys():
        model = supernet.extract(architecture)
        counts = {"params": parameters(model), "flops": flops(model, example_inputs(space, 1, tokens)), **counts}
    return {name: counts[name] for name in ("params", "flops")}


class Inherited:
    """Judges sub-networks of a trained supernet, many with little, few as trials are.

    Args:
        encoder: with the supernet, as :func:`supernet_encoder` makes it.
        texts: of each meta-validation class, on which :meth:`first` judges.
    """

    def __init__(self, evaluation: Evaluation, supernet: Supernet, encoder: Encoder, texts: int):
        self.evaluation, self.supernet, self.encoder = evaluation, supernet, encoder
        pool = evaluation.tasks[VALIDATION]
        few = thinned(pool, texts, evaluation.shape, evaluation.settings.seed)
        self._quick = replace(evaluation, tasks=Tasks({VALIDATION: few}))

    def first(self, architectures: Sequence[Architecture]) -> Iterator[tuple[int, dict[str, float]]]:
        """Metrics from as many episodes as a trial's, but of few texts, each embedded once.

        Yields the index of an architecture with its metrics, those with the same first choices one after the other.
        """
        return self._judged(self._quick, architectures)

    def second(self, architectures: Sequence[Architecture]) -> Iterator[tuple[int, dict[str, float]]]:
        """Likewise from the episodes of trials: what a trial without any training would measure."""
        return self._judged(self.evaluation, architectures)

    def _judged(
        self, evaluation: Evaluation, architectures: Sequence[Architecture]
    ) -> Iterator[tuple[int, dict[str, float]]]:
        for i in sorted(range(len(architectures)), key=lambda i: self._path(architectures[i])):
            yield i, self._metrics(evaluation, architectures[i])

    def sharing(self) -> AbstractContextManager[None]:
        """Within, the weights do not change: what sub-networks have in common is computed once, if the supernet can."""
        return self.supernet.sharing() if isinstance(self.supernet, Sharing) else nullcontext()

    def _metrics(self, evaluation: Evaluation, architecture: Architecture) -> dict[str, float]:
        self.supernet.select(architecture)
        scores = evaluation.accuracies(self.encoder, VALIDATION, evaluation.settings.episodes)
        size = size_of(evaluation.space, self.supernet, architecture, evaluation.settings.flops_tokens)
        return {"accuracy": float(scores.mean()), "accuracy_ci95": interval95(scores), **size}

    def _path(self, architecture: Architecture) -> list[int]:
        """An architecture as positions of its values, in the order of the space's choices; -1 for no effect."""
        table: Mapping = self.evaluation.space.table
        return [
            list(choice.values).index(architecture[name]) if name in architecture.values else -1
            for name, choice in table.items()
        ]


def thinned(pool: Pool, texts: int, shape: EpisodeShape, seed: int) -> Pool:
    """The pool with at most so many texts of each class, drawn at random; no fewer than an episode takes."""
    rng = np.random.default_rng(seed)
    labels = np.full_like(pool.labels, -1)
    for label, members in enumerate(pool.members):
        count = min(len(members), max(texts, shape.shots + shape.queries))
        labels[rng.choice(members, count, replace=False)] = label
    return replace(pool, labels=labels)
