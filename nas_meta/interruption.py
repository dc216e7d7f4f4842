"""SIGINT, noticed by the search where it can stop rather than thrown into native code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nas_meta.errors import NasMetaError


class Interrupted(NasMetaError):
    """The search was interrupted; what had finished is kept."""

    exit_code = 130


class Stop(threading.Event):
    """Set by SIGINT; ``listened`` once the search looks at it by itself."""

    listened = False


@contextmanager
def interruptible() -> Iterator[Stop]:
    """SIGINT sets the event; it is raised only where nobody looks at it, for native code does not bear that well."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def first(_number: int, _frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not stop.listened:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, first)
    try:
        yield stop
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what had finished is kept in the run directory") from None
    finally:
        signal.signal(signal.SIGINT, previous)
