"""The one wall between NNI and the rest: an NNI 3.0 strategy, unmodified, behind ask and tell.

NNI's strategies call an engine from a loop of their own. Here that loop runs on a private thread, and control is
handed over strictly: the thread works only while ``ask`` or ``tell`` waits for it, so a strategy never runs
concurrently with the search.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from nni.mutable import Categorical, LabeledMutable, Sample, SampleValidationError
from nni.nas.execution import ExecutionEngine
from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
from nni.nas.space import ExecutableModelSpace, ModelStatus
from nni.nas.strategy.base import Strategy as NNIStrategy

from nas_meta import WAIT, Architecture, Outcome, SearchContext, SearchSpace, Strategy
from nas_meta.errors import StrategyError
from strategies.shared.mutation import neighbour, unseen_architecture

_ASK = object()
_STOP = object()


class _Space(ExecutableModelSpace):
    """A search space as NNI sees it: one categorical per choice.

    Samples that break a constraint, or whose architecture was frozen before, are invalid, so NNI draws again.
    """

    def __init__(self, space: SearchSpace, seen: set[str]):
        super().__init__()
        self.space, self.seen = space, seen
        self.evaluator = None
        self.sample: Sample | None = None
        self.architecture: Architecture | None = None

    def leaf_mutables(self, is_leaf: Any) -> Iterable[LabeledMutable]:
        for name, choice in self.space.table.items():
            yield Categorical(list(choice.values), label=name)

    def check_contains(self, sample: Sample) -> SampleValidationError | None:
        architecture = self.space.canonical(sample)
        problem = self.space.problem(architecture)
        if problem:
            return SampleValidationError(problem)
        if architecture.id in self.seen:
            return SampleValidationError("the same architecture was proposed before")
        return None

    def freeze(self, sample: Sample) -> _Space:
        self.validate(sample)
        frozen = _Space(self.space, self.seen)
        frozen.sample = dict(sample)
        frozen.architecture = self.space.canonical(sample)
        frozen.status = ModelStatus.Frozen
        self.seen.add(frozen.architecture.id)
        return frozen

    def random(self, memo: Sample | None = None, random_state: Any = None) -> _Space:
        """Every choice uniform, as NNI draws; where the space draws otherwise, as it does."""
        if not self.space.draws:
            return super().random(memo=memo, random_state=random_state)
        rng = np.random.default_rng(random_state.randint(2**31))
        others = {n: c.values[int(rng.integers(len(c.values)))] for n, c in self.space.table.items()}
        sample = {**others, **self.space.sample(rng).values}
        if memo is not None:
            memo.update(sample)
        return self.freeze(sample)

    def grid(self, memo: Sample | None = None, granularity: int | None = None) -> Iterable[_Space]:
        """Every valid architecture once; NNI's own walk would end at the first invalid sample."""
        for architecture in self.space.walk():
            if architecture.id not in self.seen:
                yield self.freeze(architecture.values)


class _Engine(ExecutionEngine):
    """NNI's engine, on NNI's thread: waits for the search, answers it, and plays results back."""

    def __init__(self, inbox: queue.SimpleQueue, outbox: queue.SimpleQueue):
        super().__init__()
        self.inbox, self.outbox = inbox, outbox
        self.models: dict[str, _Space] = {}
        self.stopped = False
        self.asked = False

    def listen(self, answer: Any = None) -> bool:
        """Handles what the search says until it asks (True) or stops (False)."""
        while not self.stopped:
            if self.asked:
                if answer is None:
                    return True
                self.asked = False
                self.outbox.put(answer)
            message = self.inbox.get()
            if message is _STOP:
                self.stopped = True
            elif message is _ASK:
                self.asked = True
            else:
                self.play(*message) if len(message) > 1 else self.take_back(*message)
                self.outbox.put(None)
        return False

    def play(self, architecture_id: str, reward: float, measured: bool) -> None:
        """The final metric comes before the end of training: otherwise evolution stays random."""
        model = self.models[architecture_id]
        self.dispatch_model_event(FinalMetricEvent(model, reward))
        status = ModelStatus.Trained if measured else ModelStatus.Failed
        self.dispatch_model_event(TrainingEndEvent(model, status))

    def take_back(self, architecture_id: str) -> None:
        """Ends a model without a metric: evolution then leaves it out of its population."""
        model = self.models.pop(architecture_id)
        model.seen.discard(architecture_id)
        self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Failed))

    def idle_worker_available(self) -> bool:
        self.listen()
        return True

    def budget_available(self) -> bool:
        return not self.stopped

    def submit_models(self, *models: _Space) -> None:
        for model in models:
            if not self.listen():
                return
            self.asked = False
            model.status = ModelStatus.Training
            self.models[model.architecture.id] = model
            self.outbox.put(model.architecture)

    def wait_models(self, *models: _Space) -> None:
        while not self.stopped and any(not m.status.completed() for m in models or self.models.values()):
            self.listen(answer=WAIT)

    def list_models(self, status: ModelStatus | None = None) -> Iterable[_Space]:
        return [m for m in self.models.values() if status is None or m.status == status]


class NNIAdapter(Strategy):
    """Runs an NNI strategy; subclasses define :meth:`make`.

    NNI gives up after some hundred draws of what is invalid or was proposed before. What is left of the space then
    follows from the neighbourhood of the best.

    Raises:
        StrategyError: NNI's code raised; its words are in the sentence.
    """

    most_in_flight: int | None = None
    """Proposals without a result that the strategy can bear; None for any number."""

    def __init__(self, context: SearchContext, options: Any = None):
        super().__init__(context, options)
        self._inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue = queue.SimpleQueue()
        self._in_flight: set[str] = set()
        self._proposed: set[str] = set()
        self._near: set[str] = set()  # proposed without NNI
        self._scores: dict[Architecture, float] = {}
        self._rng = np.random.default_rng(context.seed)
        self._peak, self._told = 0, False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="nni-strategy", daemon=True)
        self._thread.start()

    def reward(self, outcome: Outcome) -> float:
        """What NNI hears of a trial; one without a score ranks last, so a population is never empty or sees NaN."""
        return float("-inf") if outcome.score is None else float(outcome.score)

    def make(self) -> NNIStrategy:
        """NNI's strategy with the options and the seed of the search."""
        raise AssertionError("every NNI strategy defines make()")

    def ask(self) -> Any:
        if self.most_in_flight is not None and self._full():
            return WAIT
        answer = self._say(_ASK)
        if answer is None:
            answer = self._left()
            if answer is not None:
                self._near.add(answer.id)
        if isinstance(answer, Architecture):
            self._in_flight.add(answer.id)
            self._proposed.add(answer.id)
            self._peak = max(self._peak, len(self._in_flight))
        return answer

    def _full(self) -> bool:
        # Once so many were in flight NNI draws from results, of which there are none before the first is told.
        return (self._peak if not self._told else len(self._in_flight)) >= self.most_in_flight

    def tell(self, outcome: Outcome) -> None:
        self._told = True
        self._in_flight.discard(outcome.architecture.id)
        if outcome.architecture.id not in self._near:
            self._say((outcome.architecture.id, self.reward(outcome), outcome.score is not None))
        if outcome.score is not None:
            self._scores[outcome.architecture] = outcome.score

    def _left(self) -> Architecture | None:
        """What was not proposed yet, near the best; None where nothing is left."""
        if not self._scores:
            return unseen_architecture(self.context.space, self._proposed, self._rng)
        best = max(self._scores, key=self._scores.get)
        return neighbour(self.context.space, best, self._proposed, self._rng)

    def withdraw(self, architecture: Architecture) -> None:
        if not self.withdraws:
            super().withdraw(architecture)
        for known in (self._in_flight, self._proposed):
            known.discard(architecture.id)
        if architecture.id in self._near:
            self._near.remove(architecture.id)
        else:
            self._say((architecture.id,))

    def close(self) -> None:
        self._inbox.put(_STOP)
        self._thread.join(timeout=5)

    def _say(self, message: Any) -> Any:
        if self._failure is None and self._thread.is_alive():
            self._inbox.put(message)
            answer = self._outbox.get()
            if answer is not _STOP:
                return answer
        if self._failure is not None:
            raise StrategyError(f"NNI's {type(self).__name__} failed: {self._failure}") from self._failure
        return None

    def _run(self) -> None:
        engine = _Engine(self._inbox, self._outbox)
        try:
            self.make()(_Space(self.context.space, set()), engine)
        except BaseException as error:
            self._failure = error
        # The strategy has nothing more to propose; results may still come in.
        if engine.asked and self._failure is None:
            self._outbox.put(None)
        while not engine.stopped and self._failure is None:
            message = self._inbox.get()
            if message is _STOP:
                return
            self._outbox.put(None)
        self._outbox.put(_STOP)
