"""A clock that counts the time in which a process runs: not while its machine sleeps, whatever the date is set to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

GAP = 60.0  # seconds without a reading after which the process is taken to have been suspended


class ActiveClock:
    """Counts seconds since its creation, without the gaps in which nobody read it.

    A thread reads it every few seconds. A longer time between two readings means that the process was suspended, for
    example with the laptop that it runs on, and does not count. Example: readings at 0, 10, 20, 3620 and 3630 seconds
    of the system's monotonic clock count as 0, 10, 20, 20 and 30 seconds.

    Args:
        now: The system's clock, in seconds; it may stand still but not run backwards.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._now, self._seconds, self._last = now, 0.0, now()
        self._lock = threading.Lock()

    def seconds(self) -> float:
        """Return the seconds counted so far."""
        with self._lock:
            now = self._now()
            step, self._last = now - self._last, now
            if 0 < step < GAP:
                self._seconds += step
            return self._seconds
