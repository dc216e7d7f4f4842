"""JSON files in which long benchmarks keep their results, one measurement per line.

A benchmark measures only what its file lacks, so an interrupted run resumes where it stopped. To measure something
again, delete its line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.table import machine


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Stored measurements by name; empty if the file does not exist."""
    return json.loads(path.read_text(encoding="utf-8"))["measured"] if path.is_file() else {}


def write(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes all measurements and the machine they were made on."""
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in results.items())
    path.write_text(f'{{"machine": {json.dumps(machine())}, "measured": {{\n{rows}\n}}}}\n', encoding="utf-8")


def measure_missing(
    path: Path, names: Iterable[str], seeds: Sequence[int], measure: Callable[[str, int], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Measures the pairs of name and seed that the file lacks, and stores each one at once.

    Every name is measured with the first seed before any is measured with the next.

    Args:
        path: results file.
        names: what to measure, such as strategies or candidates.
        seeds: seeds to measure each name with.
        measure: function of name and seed that returns one measurement.

    Returns:
        All measurements by ``"NAME SEED"``.
    """
    results, names = read(path), list(names)
    for seed in seeds:
        for name in names:
            if f"{name} {seed}" not in results:
                results[f"{name} {seed}"] = measure(name, seed)
                write(path, results)
    return results


def mean_and_interval(values: Sequence[float], digits: int = 3) -> str:
    """Mean and 95% interval by Student's t as text; fewer than three values are listed one by one instead."""
    from scipy.stats import t

    if len(values) < 3:
        return ", ".join(f"{value:.{digits}f}" for value in values) or "-"
    interval = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.{digits}f} ± {interval:.{digits}f}"
