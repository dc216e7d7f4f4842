"""The ask-and-tell protocol: what a strategy's author imports.

The controller asks for an architecture whenever a worker is free and tells every finished trial, always from
one thread. A strategy must be a function of its seed and of the order of asks and tells: resuming replays them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nas_meta.core.objectives import Objective
from nas_meta.core.options import PluginOptions
from nas_meta.errors import StrategyError
from nas_meta.space.architecture import Architecture, Value
from nas_meta.space.search_space import SearchSpace

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from nas_meta.evaluation.progress import JobResult, Progress
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.tasks.pool import Pool


@dataclass(frozen=True)
class Outcome:
    """A finished trial as a strategy sees it.

    Attributes:
        status: ``completed``, ``failed``, ``stopped`` or ``timed-out``.
        metrics: everything that was measured; of a stopped trial what stood at its last rung; empty if it failed.
        score: the first objective, signed so that more is better; None where nothing was measured.
        values: every objective, signed alike; None where nothing was measured.
    """

    architecture: Architecture
    status: str
    metrics: Mapping[str, float]
    score: float | None
    values: tuple[float, ...] | None = None


class Wait:
    """The type of :data:`WAIT`."""

    def __reduce__(self) -> str:
        return "WAIT"  # one object, wherever it was sent

    def __repr__(self) -> str:
        return "WAIT"


WAIT = Wait()
"""Returned by :meth:`Strategy.ask` when the next proposal depends on a trial that still runs."""


@dataclass(frozen=True)
class SearchContext:
    """What a strategy may know about the search before it starts."""

    space: SearchSpace
    objectives: Sequence[Objective]
    trials: int
    workers: int
    seed: int
    tokens: int = 128
    """Of a text for which the space counts FLOPs."""


@dataclass(frozen=True)
class Adapted:
    """A model for one task, and the classifier behind it.

    With z an embedding of unit length, logits are weight · z + bias.

    Attributes:
        weight: ``[N, D]``.
        bias: ``[N]``.
    """

    architecture: Architecture
    model: nn.Module
    weight: Tensor
    bias: Tensor


class Job(Protocol):
    """Work before the first trial, such as training a supernet, on one worker or several. Travels there by pickle.

    Called with the evaluation it yields :class:`~nas_meta.evaluation.Progress`, now and then with a checkpoint, and
    returns a :class:`~nas_meta.evaluation.JobResult`. Called with a checkpoint, too, it goes on where that was taken.
    Where it has an attribute ``workers``, so many do it together (:mod:`nas_meta.learners.training.distributed`).
    """

    @property
    def steps(self) -> int:
        """How many steps it takes."""
        ...

    def __call__(
        self, evaluation: Evaluation, checkpoint: np.ndarray | None = None
    ) -> Generator[Progress, None, JobResult]: ...


class Strategy(ABC):
    """Proposes architectures, learns from results."""

    Options: type[PluginOptions] = PluginOptions
    withdraws: bool = False
    """Whether it takes proposals back (:meth:`withdraw`), which ``strategy.prefilter`` needs."""

    def __init__(self, context: SearchContext, options: PluginOptions | None = None):
        self.context = context
        self.options = options if options is not None else self.Options()
        self.resolved: dict[str, Value] = {}
        """What options that were left out became; they are written into the run's config."""

    @abstractmethod
    def ask(self) -> Architecture | Wait | None:
        """The next architecture, :data:`WAIT` until something is told, or None when nothing is left."""

    @abstractmethod
    def tell(self, outcome: Outcome) -> None:
        """A proposed architecture's trial has ended."""

    def withdraw(self, architecture: Architecture) -> None:
        """A proposal that is not tried: nothing will be told of it, and it may be proposed again.

        Raises:
            StrategyError: the strategy does not take proposals back.
        """
        raise StrategyError(f"{type(self).__name__} does not take proposals back")

    def job(self) -> Job | None:
        """What one worker does before the first proposal is asked for; by default nothing."""
        return None

    def receive(self, findings: Mapping[str, Any], weights: np.ndarray | None) -> None:  # noqa: B027
        """What the job found, as the journal holds it, and the weights it ended with (safetensors)."""

    def start_of(self, architecture: Architecture) -> np.ndarray | None:
        """What a trial's model starts from (safetensors); by default the weights that the space builds it with."""
        return None

    def adapted(self, evaluation: Evaluation, pool: Pool, support: Sequence[np.ndarray]) -> Adapted | None:
        """After :meth:`receive`: a model for the task of a support set, with an architecture of its own.

        Args:
            support: of each class the indices of its examples in the pool.

        None where the strategy does not choose architectures by task.
        """
        return None

    def close(self) -> None:  # noqa: B027
        """The search is over; release what is held."""
