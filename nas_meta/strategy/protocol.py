"""The ask-and-tell protocol between a search and its strategy: what authors of strategies import.

The controller calls ``ask`` whenever a worker is free and ``tell`` whenever a trial has ended, always from one thread.
Invariant: a strategy is a function of its seed and of the order of these calls, because resuming a search replays them.
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
    """The outcome of a trial, which :meth:`Strategy.tell` receives.

    Attributes:
        architecture: The architecture, as it was proposed.
        status: ``completed``, ``stopped`` (by the stopping rule, at a rung), ``failed`` or ``timed-out``.
        metrics: Everything that was measured, by name; at the last rung for a stopped trial; empty if the trial failed
            or timed out.
        score: Value of the first objective, signed so that higher is better; None if the objectives were not measured.
        values: Values of all objectives in their order, signed in the same way; None if they were not measured.
    """

    architecture: Architecture
    status: str
    metrics: Mapping[str, float]
    score: float | None
    values: tuple[float, ...] | None = None


class Wait:
    """Type of the constant :data:`WAIT`."""

    def __reduce__(self) -> str:
        return "WAIT"  # unpickles as the same object in every process

    def __repr__(self) -> str:
        return "WAIT"


WAIT = Wait()
"""Returned by :meth:`Strategy.ask` if the next proposal depends on a trial that is still running."""


@dataclass(frozen=True)
class SearchContext:
    """What a strategy knows about its search when it is created.

    A resumed search passes the values that it began with.

    Attributes:
        space: The search space, prepared. It includes searched hyperparameters and excludes architectures that violate
            a limit that can be counted.
        objectives: The objectives; the first one ranks trials.
        trials: Number of trials in the budget.
        workers: Number of trials that run at the same time, so that as many proposals can be without an outcome.
        seed: Seed of all random decisions of the strategy.
        tokens: Length of the text for which the space counts FLOPs, in tokens; see :meth:`SearchSpace.counts`.
    """

    space: SearchSpace
    objectives: Sequence[Objective]
    trials: int
    workers: int
    seed: int
    tokens: int = 128


@dataclass(frozen=True)
class Adapted:
    """A model that is adapted to one task, with its linear classifier.

    The logits of an example with the embedding z, scaled to unit length, are weight · z + bias.

    Attributes:
        architecture: The architecture that was chosen for the task.
        model: The adapted model, which the search space can save.
        weight: ``[N, D]``, one row per class.
        bias: ``[N]``.
    """

    architecture: Architecture
    model: nn.Module
    weight: Tensor
    bias: Tensor


class Job(Protocol):
    """Work of a strategy before its first proposal, such as training a supernet.

    A job is pickled and runs on one worker. With an attribute ``workers`` above 1, it runs on that many workers, which
    share a process group of ``torch.distributed`` (:mod:`nas_meta.learners.training.distributed`). If a worker dies or
    the search is interrupted, the job is called again with its last checkpoint.
    """

    @property
    def steps(self) -> int:
        """Total number of steps, for the display of progress."""
        ...

    def __call__(
        self, evaluation: Evaluation, checkpoint: np.ndarray | None = None
    ) -> Generator[Progress, None, JobResult]:
        """Run the job.

        Args:
            evaluation: Space, learner, tasks and device of the search.
            checkpoint: The last :attr:`Progress.checkpoint <nas_meta.evaluation.Progress.checkpoint>` of an earlier
                attempt, to resume from; None starts anew.

        Yields:
            Progress after every step, from time to time with a checkpoint.

        Returns:
            Findings and weights, which :meth:`Strategy.receive` gets.

        Raises:
            NasMetaError: The job cannot be done; the search ends with this message.
        """
        ...


class Strategy(ABC):
    """Base class of strategy plugins: proposes architectures and learns from their outcomes.

    Subclasses define :meth:`ask` and :meth:`tell`. All methods are called in the driver, from one thread. A strategy
    draws random numbers only from a generator that is seeded with ``context.seed``, and does not depend on time: a
    resumed search creates a new strategy and replays the calls, and must get the same proposals.

    Example: of eight random architectures, propose the one that shares the most values with the best so far::

        import numpy as np
        from nas_meta import Strategy

        class NearBest(Strategy):
            def __init__(self, context, options=None):
                super().__init__(context, options)
                self.rng = np.random.default_rng(context.seed)
                self.best = None

            def ask(self):
                candidates = [self.context.space.sample(self.rng) for _ in range(8)]
                if self.best is None:
                    return candidates[0]
                best = set(self.best.architecture.values.items())
                return max(candidates, key=lambda a: len(best & set(a.values.items())))

            def tell(self, outcome):
                if outcome.score is not None and (self.best is None or outcome.score > self.best.score):
                    self.best = outcome

    With this class in ``near_best.py``, ``strategy: {name: near_best.py:NearBest}`` uses it.

    Args:
        context: Space, objectives and budget of the search.
        options: Validated options of the plugin; by default those of ``Options()``.

    Attributes:
        context: The context.
        options: The options, an instance of ``Options``.
        resolved: Values that the strategy chose for options without a fixed default, by name; the run's config records
            them.

    Raises:
        ConfigError: By subclasses, if the strategy cannot search this space or these objectives.
    """

    Options: type[PluginOptions] = PluginOptions
    learns: bool = False
    """Whether the strategy learns from results that it did not propose (:meth:`learn`), which ``warm_start`` needs."""
    withdraws: bool = False
    """Whether the strategy can withdraw proposals (:meth:`withdraw`), which ``strategy.prefilter`` needs."""

    def __init__(self, context: SearchContext, options: PluginOptions | None = None):
        self.context = context
        self.options = options if options is not None else self.Options()
        self.resolved: dict[str, Value] = {}

    @abstractmethod
    def ask(self) -> Architecture | Wait | None:
        """Propose the next architecture; called when a worker is free.

        An architecture may be proposed again: it is not trained twice, and :meth:`tell` gets the known outcome.

        Returns:
            An architecture of ``context.space``; :data:`WAIT` if the proposal depends on a running trial; None if there
            is nothing left to propose. After WAIT and None, the next call follows when a trial has ended.

        Raises:
            StrategyError: The strategy cannot propose; the search ends with this message.
        """

    @abstractmethod
    def tell(self, outcome: Outcome) -> None:
        """Learn from the outcome of a proposal, also of one that failed; called once per proposal.

        With several workers, outcomes come in the order in which trials end, not in the order of proposals.

        Args:
            outcome: The outcome.
        """

    def learn(self, outcome: Outcome) -> None:  # noqa: B027
        """Learn from an architecture that this strategy did not propose; by default it is ignored.

        It is the result of an earlier run, or of a trial that the user enqueued. It may be proposed later.

        Args:
            outcome: The outcome. Values that the earlier run did not measure are None.
        """

    def withdraw(self, architecture: Architecture) -> None:
        """Take a proposal back as if it had never been made: it gets no outcome and may be proposed again.

        Args:
            architecture: A proposal of :meth:`ask` without an outcome.

        Raises:
            StrategyError: The strategy cannot withdraw proposals (the default).
        """
        raise StrategyError(f"{type(self).__name__} cannot withdraw proposals")

    def job(self) -> Job | None:
        """Return the work that is done on a worker before the first proposal; by default None."""
        return None

    def receive(self, findings: Mapping[str, Any], weights: np.ndarray | None) -> None:  # noqa: B027
        """Take over the result of the job; called before the first :meth:`ask`, also when a search is resumed.

        Args:
            findings: Findings of the job, as the journal stores them (JSON).
            weights: Weights that the job returned (safetensors, ``uint8``); None if there are none.
        """

    def start_of(self, architecture: Architecture) -> np.ndarray | None:
        """Return the initial weights of a trial's model.

        Args:
            architecture: A proposal of this strategy.

        Returns:
            Weights (safetensors, ``uint8``), such as those of the sub-network of a supernet; None, the default, keeps
            the weights that the space builds the model with.
        """
        return None

    def trial_steps(self, steps: int) -> int:
        """Return how many steps a trial trains that starts from weights of the strategy (:meth:`start_of`).

        Args:
            steps: The steps of other trials, ``learner.steps``.

        Returns:
            The steps; by default as many.
        """
        return steps

    def adapted(self, evaluation: Evaluation, pool: Pool, support: Sequence[np.ndarray]) -> Adapted | None:
        """Adapt model and architecture to one task; called by ``nas-meta adapt`` after :meth:`receive`.

        Args:
            evaluation: Space, learner and device of the search.
            pool: Tokenised examples of the task.
            support: Indices into the pool of the support examples, one array per class.

        Returns:
            The adapted model; None, the default, if the strategy does not choose architectures by task.
        """
        return None

    def close(self) -> None:  # noqa: B027
        """Release resources; called when the search ends, also after an error."""
