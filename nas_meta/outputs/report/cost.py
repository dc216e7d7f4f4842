"""What a search cost: core-hours and GPU-hours as measured, energy and money as estimated from stated rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas_meta.journal.run import Run


@dataclass(frozen=True)
class Rates:
    """What an hour of computing takes; the defaults are rough figures of cloud machines, to be replaced by your own.

    Attributes:
        watts_per_core: Power of a CPU core with its share of the machine, in watts.
        watts_per_gpu: Power of a GPU, in watts.
        price_per_core_hour: Price of a core for an hour.
        price_per_gpu_hour: Price of a GPU for an hour.
        currency: Currency of the prices.
    """

    watts_per_core: float = 10.0
    watts_per_gpu: float = 400.0
    price_per_core_hour: float = 0.05
    price_per_gpu_hour: float = 2.5
    currency: str = "USD"

    def __str__(self) -> str:
        """The rates in words."""
        return (
            f"{self.watts_per_core:g} W and {self.price_per_core_hour:g} {self.currency} per core-hour, "
            f"{self.watts_per_gpu:g} W and {self.price_per_gpu_hour:g} {self.currency} per GPU-hour"
        )


def cost_of(run: Run, document: Mapping[str, Any], device: str, seconds: float | None, rates: Rates) -> dict[str, Any]:
    """Return what the trials of a run cost.

    Args:
        run: The run.
        document: Its config as plain data.
        device: Device of the trials, ``cpu`` or ``cuda``.
        seconds: Duration of the search until its last trial, over all sessions; None if it is not recorded.
        rates: What an hour takes.

    Returns:
        ``trial_hours``, ``core_hours`` and ``gpu_hours`` of the trials (CPUs and GPUs that they occupied), ``hours`` of
        the search, the estimates ``kwh`` and ``money``, and the ``rates``. Values that are not recorded are None.
    """
    hours = sum(t.seconds or 0.0 for t in run.trials) / 3600
    resources = document.get("resources")
    given = resources.get("gpus_per_trial") if isinstance(resources, Mapping) else None
    gpus = float(given) if device == "cuda" and isinstance(given, (int, float)) else None if device == "cuda" else 0.0
    cores = hours * run.cpus if run.cpus else None
    gpu_hours = None if gpus is None else hours * gpus
    kwh = money = None
    if cores is not None and gpu_hours is not None:
        kwh = (cores * rates.watts_per_core + gpu_hours * rates.watts_per_gpu) / 1000
        money = cores * rates.price_per_core_hour + gpu_hours * rates.price_per_gpu_hour
    return {
        "trial_hours": hours, "core_hours": cores, "gpu_hours": gpu_hours,
        "hours": None if seconds is None else seconds / 3600, "kwh": kwh, "money": money,
        "rates": {**asdict(rates), "in_words": str(rates)},
    }  # fmt: skip
