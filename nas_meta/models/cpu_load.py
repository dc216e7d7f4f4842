"""The CPU time that other processes take while something is measured."""

from __future__ import annotations

import os
import time

import psutil

BUSY = 0.25  # share of the machine's CPUs in use by others, above which a measurement of time is disturbed


class OtherLoad:
    """The load of other processes since the creation of this object."""

    def __init__(self) -> None:
        self._started, self._others = time.perf_counter(), _cpu_seconds_of_others()

    def read(self) -> float:
        """Return the average number of CPUs that other processes used."""
        elapsed = time.perf_counter() - self._started
        return max(0.0, (_cpu_seconds_of_others() - self._others) / elapsed)


def is_busy(load: float, cpus: int | None = None) -> bool:
    """Return whether other processes disturb a measurement of time.

    Args:
        load: The average number of CPUs that they use.
        cpus: CPUs of the machine; by default those of this one.
    """
    return load > BUSY * (cpus or os.cpu_count() or 1)


def _cpu_seconds_of_others() -> float:
    """Return the CPU time of all other processes since the start of the machine, other virtual machines included."""
    times, own = psutil.cpu_times()._asdict(), psutil.Process().cpu_times()
    busy = sum(times.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))
    return busy - own.user - own.system
