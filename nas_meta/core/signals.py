"""Ctrl-C and SIGTERM set an event that a search polls: an exception in the middle of native code is not safe."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from nas_meta.errors import NasMetaError


class Interrupted(NasMetaError):
    """A search or a pre-training was interrupted by Ctrl-C or SIGTERM; finished work is kept."""

    exit_code = 130


class Stop(threading.Event):
    """Event that is set by the first SIGINT, or by SIGTERM.

    Attributes:
        listened: Whether the running code polls this event. Set it to ``True`` before the polling starts; until then,
            SIGINT raises ``KeyboardInterrupt`` as usual.
        immediate: Whether a second SIGINT, or SIGTERM, has asked to end running trials without waiting for them.
        requested_at: Time of the first SIGINT, in seconds of the monotonic clock.
        handlers: Handlers by signal; none outside the main thread.
    """

    listened = False
    immediate = False
    requested_at = 0.0
    handlers: Mapping[int, Callable[[int, Any], None]] = MappingProxyType({})

    def install(self) -> None:
        """Install the handlers, again after a library such as Ray has installed its own."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def over(self, grace: float) -> bool:
        """Return whether running trials have to be ended now.

        Args:
            grace: Seconds that running trials get to finish after the first SIGINT.

        Returns:
            ``True`` after a second SIGINT, or ``grace`` seconds after the first.
        """
        return self.is_set() and (self.immediate or time.monotonic() - self.requested_at > grace)


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM by setting an event for the duration of a ``with`` block.

    The first SIGINT sets the event, the second sets its ``immediate``, and the third raises ``KeyboardInterrupt``.
    SIGTERM, after which a process is soon killed, counts as the first and the second one. Every signal raises
    ``KeyboardInterrupt`` while :attr:`Stop.listened` is ``False``. Outside the main thread, where
    Python allows no signal handlers, the event is never set.

    Yields:
        The event.

    Raises:
        Interrupted: ``KeyboardInterrupt`` was raised inside the block.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handler(_number: int, _frame: Any) -> None:
        if not stop.listened or stop.immediate:
            stop.set()
            raise KeyboardInterrupt
        if stop.is_set():
            stop.immediate = True
        else:
            stop.requested_at = time.monotonic()
            stop.set()

    def terminate(_number: int, _frame: Any) -> None:
        stop.immediate = True
        stop.set()
        if not stop.listened:
            raise KeyboardInterrupt

    stop.handlers = {signal.SIGINT: handler, signal.SIGTERM: terminate}
    previous = {number: signal.getsignal(number) for number in stop.handlers}
    stop.install()
    try:
        yield stop
    except KeyboardInterrupt:
        raise Interrupted("interrupted; finished work is kept") from None
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier if earlier is not None else signal.SIG_DFL)
