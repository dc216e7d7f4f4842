"""An engine that runs calls one after the other in this process, for debugging and for a single device."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from nas_meta.execution.captured_output import CapturedOutput
from nas_meta.execution.engine import Event, call


class InlineEngine:
    """An engine with one worker, this process.

    Args:
        payload: The object whose methods are called; its ``setup()`` runs immediately.
    """

    def __init__(self, payload: Any):
        self._payload = payload
        self._pending: tuple[Any, str, tuple] | None = None
        self._resume: bool | None = None
        self._cancelled = False
        self._output = CapturedOutput(pass_through=True)
        payload.setup()

    def free(self) -> int:
        return 0 if self._pending else 1

    def await_worker(self) -> bool:
        return self._pending is None

    def submit(self, key: Any, method: str, *arguments: Any) -> None:
        assert self._pending is None, "the worker is busy"
        self._pending = (key, method, arguments)

    def proceed(self, key: Any, resume: bool) -> None:
        self._resume = resume

    def cancel(self, key: Any) -> None:
        self._cancelled = True

    def events(self) -> Iterator[Event]:
        while self._pending:
            key, method, arguments = self._pending
            running = call(key, self._output, getattr(self._payload, method), *arguments)
            event = next(running)
            while not event.done:
                self._resume = None
                yield event
                if self._cancelled:
                    break
                assert not event.paused or self._resume is not None, f"call {key} is paused; expected proceed()"
                event = running.send(self._resume)
            self._pending = None
            if self._cancelled:
                self._cancelled = False
                running.close()
            else:
                yield event

    def host(self) -> str:
        return "127.0.0.1"

    def failure(self) -> str | None:
        return None

    def close(self) -> None:
        self._pending = None
        gc.unfreeze()
