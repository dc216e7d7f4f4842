"""Ctrl-C: SIGINT sets an event that a search polls, because an exception in the middle of native code is not safe."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nas_meta.errors import NasMetaError


class Interrupted(NasMetaError):
    """A search or a pre-training was interrupted by Ctrl-C; finished work is kept."""

    exit_code = 130


class Stop(threading.Event):
    """Event that is set by the first SIGINT.

    Attributes:
        listened: Whether the running code polls this event. Set it to ``True`` before the polling starts; until then,
            SIGINT raises ``KeyboardInterrupt`` as usual.
        immediate: Whether a second SIGINT has asked to end running trials without waiting for them.
        requested_at: Time of the first SIGINT, in seconds of the monotonic clock.
    """

    listened = False
    immediate = False
    requested_at = 0.0

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
    """Handle SIGINT by setting an event for the duration of a ``with`` block.

    The first SIGINT sets the event, the second sets its ``immediate``, and the third raises ``KeyboardInterrupt``.
    Every SIGINT raises ``KeyboardInterrupt`` while :attr:`Stop.listened` is ``False``. Outside the main thread, where
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

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield stop
    except KeyboardInterrupt:
        raise Interrupted("interrupted; finished work is kept") from None
    finally:
        signal.signal(signal.SIGINT, previous)
