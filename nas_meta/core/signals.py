"""SIGINT, noticed by the search where it can stop rather than thrown into native code."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nas_meta.errors import NasMetaError


class Interrupted(NasMetaError):
    """The search was interrupted; what had finished is kept."""

    exit_code = 130


class Stop(threading.Event):
    """Set by the first SIGINT.

    Attributes:
        listened: whether the search looks at this by itself.
        at_once: whether a second SIGINT asked not to wait for what runs.
        since: when the first came, by the monotonic clock.
    """

    listened = False
    at_once = False
    since = 0.0

    def over(self, grace: float) -> bool:
        """Whether what runs has to end now: at a second SIGINT, or so many seconds after the first."""
        return self.is_set() and (self.at_once or time.monotonic() - self.since > grace)


@contextmanager
def interruptible() -> Iterator[Stop]:
    """SIGINT sets the event; it is raised only where nobody looks at it, for native code does not bear that well."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupted(_number: int, _frame: Any) -> None:
        if not stop.listened or stop.at_once:
            stop.set()
            raise KeyboardInterrupt
        if stop.is_set():
            stop.at_once = True
        else:
            stop.since = time.monotonic()
            stop.set()

    previous = signal.signal(signal.SIGINT, interrupted)
    try:
        yield stop
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what had finished is kept") from None
    finally:
        signal.signal(signal.SIGINT, previous)
