"""The engine protocol: call methods of a payload on workers, and stream what they yield and return.

The driver submits calls and consumes one stream of events. :class:`~nas_meta.execution.inline_engine.InlineEngine` runs
calls in this process, :class:`~nas_meta.execution.ray_engine.RayEngine` on workers; both keep the same protocol.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from nas_meta.core.guard import first_line
from nas_meta.errors import NasMetaError
from nas_meta.execution.captured_output import CapturedOutput


class EngineDied(NasMetaError):
    """What the engine's workers depend on has died, such as a process of Ray; the search can be resumed."""


@dataclass(frozen=True)
class Event:
    """One event of a running call.

    Attributes:
        key: The key under which the call was submitted.
        value: The value that the call yielded or, in its last event, returned.
        error: One line on why the call failed; None if it has not failed. Only in the last event.
        done: Whether this is the last event of the call.
        paused: Whether the call waits for :meth:`Engine.proceed`. It does if the yielded value has a true attribute
            ``pauses``.
        died: Whether the worker died during the call. The call itself may be fine and can be retried.
        output: Text that the call printed since its previous event; after an error also the traceback.
        worker: Where the call runs, as ``host:process``; empty if the worker died.
    """

    key: Any
    value: Any = None
    error: str | None = None
    done: bool = False
    paused: bool = False
    died: bool = False
    output: str = ""
    worker: str = ""


class Engine(Protocol):
    """Runs calls on workers; all methods are called from one thread.

    A call is submitted, yields any number of events, and ends with an event that is ``done``, unless it is cancelled.
    Between two events the caller may use every method: submit calls to free workers, resume or close paused calls, and
    cancel calls that have not ended.
    """

    def free(self) -> int:
        """Return the number of free workers, on which a call would start immediately."""

    def await_worker(self) -> bool:
        """Return whether a worker is free; if none is, wait briefly for a worker that is starting."""

    def submit(self, key: Any, method: str, *arguments: Any) -> None:
        """Start a call on a free worker; waits while workers are still starting.

        Args:
            key: Identifies the call in its events; no running call may have the same key.
            method: Name of a method of the payload, a function or a generator function.
            *arguments: Positional arguments of the method.
        """

    def proceed(self, key: Any, resume: bool) -> None:
        """Resume or end a paused call; required before the next event is requested.

        Args:
            key: The key of the paused call.
            resume: Whether the call continues. If not, its generator is closed, and the call ends with an event without
                a value.
        """

    def cancel(self, key: Any) -> None:
        """End a running or paused call; its worker, or a new one in its place, becomes free.

        No further event of the call is yielded, not even one that has already arrived.

        Args:
            key: The key of the call.
        """

    def events(self) -> Iterator[Event | None]:
        """Yield the events of all calls as they happen, until no call is running.

        Yields:
            An event, or None if nothing happened for a while.
        """

    def host(self) -> str:
        """Return the address under which workers reach this process."""

    def failure(self) -> str | None:
        """Return why no call can run any more; None while the engine works. May be called from any thread."""

    def close(self) -> None:
        """End all calls and stop everything that this engine started."""


def call(
    key: Any, output: CapturedOutput, function: Callable[..., Any], *arguments: Any
) -> Generator[Event, bool | None, None]:
    """Call a function and yield its events: what it yields if it is a generator, then its result or its error.

    After an event that is ``paused``, the consumer sends True to resume the call or False to close it.

    Args:
        key: The key of the events.
        output: Captures what the function prints.
        function: A function or a generator function.
        *arguments: Its positional arguments.

    Yields:
        The events; the last one is ``done``.
    """
    # Exempt all objects that exist now from garbage collection: scanning all imported modules would take longer than a
    # short trial.
    gc.freeze()
    output.reset_limit()
    try:
        with output:
            result = function(*arguments)
        if isinstance(result, Generator):
            result = yield from _stream_events(key, output, result)
    except GeneratorExit:
        raise
    except BaseException as error:  # a plugin may call sys.exit or raise KeyboardInterrupt
        text = output.drain() + traceback.format_exc()
        yield Event(key, error=first_line(error), done=True, output=text, worker=output.worker)
    else:
        yield Event(key, result, done=True, output=output.drain(), worker=output.worker)


def _stream_events(key: Any, output: CapturedOutput, stream: Generator) -> Generator[Event, bool | None, Any]:
    """Yield an event for every value of a generator; returns its result, or None if it is closed at a pause."""
    while True:
        try:
            with output:
                value = next(stream)
        except StopIteration as end:
            return end.value
        paused = bool(getattr(value, "pauses", False))
        resume = yield Event(key, value, paused=paused, output=output.drain(), worker=output.worker)
        if paused and not resume:
            with output:
                stream.close()
            return None
