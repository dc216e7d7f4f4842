"""Runs an unmodified NNI 3.0 strategy behind nas-meta's ask-and-tell protocol.

An NNI strategy is a loop that calls an execution engine: it submits models, waits for free workers and receives results
through callbacks. In nas-meta the search calls the strategy. The adapter therefore runs NNI's loop on a thread of its
own, and the two threads exchange messages through two queues:

- The *search thread* calls ``ask``, ``tell`` and ``withdraw``. Each call puts one message (:class:`_Ask`,
  :class:`_Report`, :class:`_Withdrawal`) into the inbox and waits for the reply in the outbox.
- The *NNI thread* runs the strategy. It takes a message from the inbox whenever NNI's code waits inside
  :class:`_Engine`, and puts exactly one reply for each message into the outbox. After NNI's loop has ended, it replies
  None to every message.

An ``exclusive`` strategy replies to an ask only when NNI's code waits again, so that only one thread runs at a time.

Invariant: at most one message is unanswered, and messages are handled in the order of the calls. After a reply NNI may
run ahead to its next wait, but it learns of no result before the message that reports it. Proposals are therefore a
function of the seed and of the order of the calls, whatever the timing, and replaying the calls of a search reproduces
its proposals exactly.

Example: random search proposes an architecture ``a``, whose trial reaches 0.8::

    search thread                             NNI thread
                                              draws a model; idle_worker_available() waits for a message
    ask()   puts _Ask(), waits           -->  idle_worker_available() returns True; submit_models(model)
            returns a                    <--  puts a; draws the next model; waits for a message
    (the trial runs)
    tell()  puts _Report(a.id, 0.8,      -->  passes the metric and the end of training to NNI's callbacks
            True), waits
            returns                      <--  puts None; waits for a message
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from nni.mutable import Categorical, LabeledMutable, Sample, SampleValidationError
from nni.nas.execution import ExecutionEngine
from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
from nni.nas.space import ExecutableModelSpace, ModelStatus
from nni.nas.strategy.base import Strategy as NNIStrategy

from nas_meta import WAIT, Architecture, Outcome, SearchContext, SearchSpace, Strategy
from nas_meta.errors import StrategyError
from strategies.nni.global_randomness import GlobalRandomness
from strategies.shared.unseen import neighbour, unseen_architecture


@dataclass(frozen=True)
class _Ask:
    """The search asks for a proposal.

    The reply is the architecture that NNI submits next, ``WAIT`` while NNI waits for running models, or None when NNI's
    strategy has ended.
    """


@dataclass(frozen=True)
class _Report:
    """A trial has ended. The reply is None.

    Attributes:
        architecture_id: The trial's architecture.
        reward: The number that NNI maximises.
        measured: Whether the trial has a score. A model without one counts as failed in NNI.
    """

    architecture_id: str
    reward: float
    measured: bool


@dataclass(frozen=True)
class _Withdrawal:
    """A proposal is not tried, so no report follows. The reply is None.

    Attributes:
        architecture_id: The proposal.
    """

    architecture_id: str


@dataclass(frozen=True)
class _Stop:
    """The search is over. Ends the NNI thread; nobody waits for a reply."""


_Message = _Ask | _Report | _Withdrawal | _Stop
_READY = object()  # first entry of the outbox of an exclusive strategy: its code waits for the first message
_ENDED = object()  # last entry of the outbox: the NNI thread handles no further messages


class NNISpace(ExecutableModelSpace):
    """A search space in NNI's terms: one categorical variable per choice.

    A sample is invalid if it breaks a constraint or if its architecture was frozen before; NNI then draws again.

    Args:
        space: The search space.
        seen: Ids of the architectures that were frozen, shared with the frozen copies of this space and extended by
            :meth:`freeze`.

    Attributes:
        architecture: The architecture of a frozen copy, otherwise None.
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

    def freeze(self, sample: Sample) -> NNISpace:
        self.validate(sample)
        frozen = NNISpace(self.space, self.seen)
        frozen.sample = dict(sample)
        frozen.architecture = self.space.canonical(sample)
        frozen.status = ModelStatus.Frozen
        self.seen.add(frozen.architecture.id)
        return frozen

    def random(self, memo: Sample | None = None, random_state: Any = None) -> NNISpace:
        """Return a random frozen copy, drawn by the space's own ``sample`` if it does not draw uniformly.

        Args:
            memo: If given, receives the sample.
            random_state: NNI's source of randomness.

        Returns:
            The frozen copy.

        Raises:
            SampleValidationError: The sample breaks a constraint or was frozen before.
        """
        if not self.space.draws:
            return super().random(memo=memo, random_state=random_state)
        rng = np.random.default_rng(random_state.randint(2**31))
        others = {n: c.values[int(rng.integers(len(c.values)))] for n, c in self.space.table.items()}
        sample = {**others, **self.space.sample(rng).values}
        if memo is not None:
            memo.update(sample)
        return self.freeze(sample)

    def grid(self, memo: Sample | None = None, granularity: int | None = None) -> Iterable[NNISpace]:
        """Yield every valid architecture once. NNI's own grid would end at the first invalid sample.

        Args:
            memo: Ignored.
            granularity: Ignored; the space is finite.

        Yields:
            A frozen copy for each architecture that was not frozen before.
        """
        for architecture in self.space.walk():
            if architecture.id not in self.seen:
                yield self.freeze(architecture.values)


class _Engine(ExecutionEngine):
    """The execution engine that NNI's strategy calls on its thread; exchanges messages with the search.

    Attributes:
        delayed: The reply that an exclusive strategy sends when NNI's code waits for the next message, or nothing.
        models: Every submitted model that was not withdrawn, by architecture id.
        ask_pending: Whether an :class:`_Ask` was received and not answered yet.
        stopped: Whether :class:`_Stop` was received.
    """

    def __init__(self, inbox: queue.SimpleQueue[_Message], outbox: queue.SimpleQueue, exclusive: bool):
        super().__init__()
        self.inbox, self.outbox, self.exclusive = inbox, outbox, exclusive
        self.delayed: list[Any] = [_READY] if exclusive else []
        self.models: dict[str, NNISpace] = {}
        self.stopped = False
        self.ask_pending = False

    def wait_for_ask(self) -> bool:
        """Handle messages until the search asks (return True) or stops (return False)."""
        while not self.stopped:
            if self.ask_pending:
                return True
            self.receive()
        return False

    def receive(self) -> None:
        """Wait for one message and handle it."""
        self.send_delayed()
        match self.inbox.get():
            case _Ask():
                self.ask_pending = True
            case _Report() as report:
                self.end_model(report)
                self.outbox.put(None)
            case _Withdrawal(architecture_id):
                self.withdraw_model(architecture_id)
                self.outbox.put(None)
            case _Stop():
                self.stopped = True

    def answer_ask(self, answer: Any) -> None:
        """Reply to the pending ask."""
        self.ask_pending = False
        self.delayed.append(answer)
        if not self.exclusive:
            self.send_delayed()

    def send_delayed(self) -> None:
        """Send the delayed reply, if there is one."""
        if self.delayed:
            self.outbox.put(self.delayed.pop())

    def end_model(self, report: _Report) -> None:
        """Pass a trial's result to NNI's callbacks.

        The metric comes before the end of training: evolution adds a model to its population when training ends, and
        only if the model has a metric by then.
        """
        model = self.models[report.architecture_id]
        self.dispatch_model_event(FinalMetricEvent(model, report.reward))
        status = ModelStatus.Trained if report.measured else ModelStatus.Failed
        self.dispatch_model_event(TrainingEndEvent(model, status))

    def withdraw_model(self, architecture_id: str) -> None:
        """End a model without a metric, so that evolution leaves it out of its population."""
        model = self.models.pop(architecture_id)
        model.seen.discard(architecture_id)
        self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Failed))

    def idle_worker_available(self) -> bool:
        self.wait_for_ask()
        return True

    def budget_available(self) -> bool:
        return not self.stopped

    def submit_models(self, *models: NNISpace) -> None:
        for model in models:
            if not self.wait_for_ask():
                return
            model.status = ModelStatus.Training
            self.models[model.architecture.id] = model
            self.answer_ask(model.architecture)

    def wait_models(self, *models: NNISpace) -> None:
        while not self.stopped and any(not m.status.completed() for m in models or self.models.values()):
            if self.ask_pending:
                self.answer_ask(WAIT)
            self.receive()

    def list_models(self, status: ModelStatus | None = None) -> Iterable[NNISpace]:
        return [m for m in self.models.values() if status is None or m.status == status]


class NNIAdapter(Strategy):
    """Base of the strategies that run an NNI strategy; subclasses define :meth:`make`.

    NNI's strategies end after too many invalid or repeated draws in a row. The adapter itself then proposes unseen
    neighbours of the best architecture, until the space is exhausted.

    Raises:
        StrategyError: NNI's code raised an exception. The message includes the one of NNI.
    """

    max_in_flight: int | None = None
    """The number of unfinished proposals from which :meth:`ask` returns ``WAIT``; None for no limit."""
    exclusive: bool = False
    """Whether NNI's code draws from the global random generators. It then runs only while the search waits for it, with
    a state of these generators that is its own: trials of an inline search use them, too."""

    def __init__(self, context: SearchContext, options: Any = None):
        super().__init__(context, options)
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue = queue.SimpleQueue()
        self._in_flight: set[str] = set()
        self._proposed: set[str] = set()
        self._fallbacks: set[str] = set()  # proposals of the adapter, which NNI does not know
        self._scores: dict[Architecture, float] = {}
        self._rng = np.random.default_rng(context.seed)
        self._peak_in_flight, self._any_reported = 0, False
        self._failure: BaseException | None = None
        self._randomness = GlobalRandomness() if self.exclusive else nullcontext()
        self._thread = threading.Thread(target=self._run, name="nni-strategy", daemon=True)
        with self._randomness:
            self._thread.start()
            if self.exclusive:
                self._outbox.get()

    def reward(self, outcome: Outcome) -> float:
        """Return the reward that NNI receives for a trial.

        Args:
            outcome: The finished trial.

        Returns:
            The score, or minus infinity for a trial without one: it ranks last, so that evolution's population is never
            empty and contains no NaN.
        """
        return float("-inf") if outcome.score is None else float(outcome.score)

    def make(self) -> NNIStrategy:
        """Return NNI's strategy with the options and the seed of the search; called once, on the NNI thread."""
        raise AssertionError("every NNI strategy defines make()")

    def ask(self) -> Any:
        if self.max_in_flight is not None and self._is_full():
            return WAIT
        answer = self._send(_Ask())
        if answer is None:
            answer = self._fallback()
            if answer is not None:
                self._fallbacks.add(answer.id)
        if isinstance(answer, Architecture):
            self._in_flight.add(answer.id)
            self._proposed.add(answer.id)
            self._peak_in_flight = max(self._peak_in_flight, len(self._in_flight))
        return answer

    def _is_full(self) -> bool:
        """Whether NNI must not be asked for more proposals before the next report."""
        # Once `max_in_flight` models ran together, NNI's evolution draws parents from results. Before the first report
        # there are none, so the peak counts, even if proposals were withdrawn since.
        return (len(self._in_flight) if self._any_reported else self._peak_in_flight) >= self.max_in_flight

    def tell(self, outcome: Outcome) -> None:
        self._any_reported = True
        self._in_flight.discard(outcome.architecture.id)
        if outcome.architecture.id not in self._fallbacks:
            self._send(_Report(outcome.architecture.id, self.reward(outcome), outcome.score is not None))
        if outcome.score is not None:
            self._scores[outcome.architecture] = outcome.score

    def _fallback(self) -> Architecture | None:
        """An unseen neighbour of the best architecture, for when NNI's strategy has ended; None if none is left."""
        if not self._scores:
            return unseen_architecture(self.context.space, self._proposed, self._rng)
        best = max(self._scores, key=self._scores.get)
        return neighbour(self.context.space, best, self._proposed, self._rng)

    def withdraw(self, architecture: Architecture) -> None:
        if not self.withdraws:
            super().withdraw(architecture)
        for ids in (self._in_flight, self._proposed):
            ids.discard(architecture.id)
        if architecture.id in self._fallbacks:
            self._fallbacks.remove(architecture.id)
        else:
            self._send(_Withdrawal(architecture.id))

    def close(self) -> None:
        self._inbox.put(_Stop())
        self._thread.join(timeout=5)

    def _send(self, message: _Message) -> Any:
        """Send a message to the NNI thread and wait for the reply; None if NNI's strategy has ended."""
        if self._failure is None and self._thread.is_alive():
            with self._randomness:
                self._inbox.put(message)
                reply = self._outbox.get()
            if reply is not _ENDED:
                return reply
        if self._failure is not None:
            raise StrategyError(f"NNI's {type(self).__name__} failed: {self._failure}") from self._failure
        return None

    def _run(self) -> None:
        """The NNI thread: run NNI's strategy, then reply None to every message until the search stops."""
        engine = _Engine(self._inbox, self._outbox, self.exclusive)
        try:
            self.make()(NNISpace(self.context.space, set()), engine)
        except BaseException as error:
            self._failure = error
        engine.send_delayed()
        if engine.ask_pending and self._failure is None:
            engine.answer_ask(None)
            engine.send_delayed()
        while not engine.stopped and self._failure is None:
            if isinstance(self._inbox.get(), _Stop):
                return
            self._outbox.put(None)
        self._outbox.put(_ENDED)
