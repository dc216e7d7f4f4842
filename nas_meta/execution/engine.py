"""What an engine is: it calls methods of a payload somewhere and hands back what they yield and return."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from nas_meta.core.guard import first_line
from nas_meta.execution.captured_output import Output


@dataclass(frozen=True)
class Event:
    """Something that a running call did.

    Attributes:
        key: the caller's name for the call.
        value: what it yielded; at its end, what it returned.
        error: why it failed, in one line; only at its end.
        done: whether the call has ended.
        paused: whether the call waits for :meth:`Engine.proceed`: what it yielded has an attribute ``pauses`` and it is
            true.
        died: whether its worker died under it: the call itself may be right, and can be tried on another.
        output: what it printed since the event before, and at an error its traceback.
        worker: where it runs, ``host:process``; empty where it died.
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
    """Runs calls on workers. Used from one thread."""

    def free(self) -> int:
        """How many more calls would start at once."""

    def await_worker(self) -> bool:
        """Whether a call would start at once; if not, waits a moment for a worker that is starting."""

    def submit(self, key: Any, method: str, *arguments: Any) -> None:
        """Starts ``payload.method(*arguments)``, a function or a generator, on a free worker; waits for one."""

    def proceed(self, key: Any, go_on: bool) -> None:
        """Lets a paused call go on where it stands, or closes its generator: that is then its end, without a value.

        To be said before the next event is asked for.
        """

    def cancel(self, key: Any) -> None:
        """Ends a call wherever it is and frees its worker; no event tells of it."""

    def events(self) -> Iterator[Event | None]:
        """Blocks until something has happened; ends when no call runs. None after a while of silence."""

    def host(self) -> str:
        """The address under which workers reach this process."""

    def close(self) -> None:
        """Stops what still runs and what this engine started."""


def call(
    key: Any, output: Output, function: Callable[..., Any], *arguments: Any
) -> Generator[Event, bool | None, None]:
    """Calls a function and tells what happens: what it yields if it is a generator, then its result or its error.

    After a paused event it is told by ``send`` whether to go on.
    """
    # What is there before a call stays: to look through all that is imported takes longer than a short trial.
    gc.freeze()
    output.renew()
    try:
        with output:
            result = function(*arguments)
        if isinstance(result, Generator):
            result = yield from _streamed(key, output, result)
    except GeneratorExit:
        raise
    except BaseException as error:  # a plugin may exit, or interrupt itself
        told = output.take() + traceback.format_exc()
        yield Event(key, error=first_line(error), done=True, output=told, worker=output.worker)
    else:
        yield Event(key, result, done=True, output=output.take(), worker=output.worker)


def _streamed(key: Any, output: Output, stream: Generator) -> Generator[Event, bool | None, Any]:
    while True:
        try:
            with output:
                value = next(stream)
        except StopIteration as end:
            return end.value
        paused = bool(getattr(value, "pauses", False))
        go_on = yield Event(key, value, paused=paused, output=output.take(), worker=output.worker)
        if paused and not go_on:
            with output:
                stream.close()
            return None
