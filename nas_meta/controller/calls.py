"""Calls on the workers of a search besides its trials: meta-tests and latency measurements.

Like a trial, a call is retried when its worker dies. A call that fails in the end is reported to the caller.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nas_meta.execution.engine import Engine, Event


@dataclass(frozen=True)
class Call:
    """A call of a method of the engine's payload.

    Attributes:
        key: Identifies the call in its event.
        method: Name of the method.
        arguments: Positional arguments of the method.
    """

    key: Any
    method: str
    arguments: tuple[Any, ...] = ()


def run_calls(
    engine: Engine, calls: Sequence[Call], retries: int, stopped: Callable[[], bool], at_once: int | None = None
) -> Iterator[Event]:
    """Run calls on free workers, and retry those whose worker dies.

    Args:
        engine: Runs the calls; no other call is running.
        calls: The calls, each with a key of its own.
        retries: How often a call is retried after the death of its worker.
        stopped: Called before the first call, after every event, and repeatedly while nothing happens; returns whether
            to give up. Calls that are running then are left to the engine.
        at_once: The largest number of calls that run at the same time; by default one per worker.

    Yields:
        The last event of each call, as they end: its result or its error.
    """
    waiting, running = deque(calls), dict[Any, Call]()
    deaths: Counter[Any] = Counter()
    while (waiting or running) and not stopped():
        while waiting and len(running) < (at_once or len(calls)) and engine.free():
            call = waiting.popleft()
            running[call.key] = call
            engine.submit(call.key, call.method, *call.arguments)
        if not running:
            engine.await_worker()
            if stopped():
                return
            continue
        for event in engine.events():
            if event is not None and event.done:
                call = running.pop(event.key)
                if event.died and deaths[call.key] < retries:
                    deaths[call.key] += 1
                    waiting.append(call)
                else:
                    yield event
            if stopped():
                return
            if waiting and len(running) < (at_once or len(calls)) and engine.free():
                break
