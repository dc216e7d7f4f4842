"""What long benchmarks measured so far, in a JSON file beside them with one line for each measurement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.table import machine


def read(path: Path) -> dict[str, dict[str, Any]]:
    """What was measured, by name; empty without the file."""
    return json.loads(path.read_text(encoding="utf-8"))["measured"] if path.is_file() else {}


def write(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Keeps what was measured."""
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(found)}" for name, found in results.items())
    path.write_text(f'{{"machine": {json.dumps(machine())}, "measured": {{\n{rows}\n}}}}\n', encoding="utf-8")


def completed(
    path: Path, names: Iterable[str], seeds: Sequence[int], measure: Callable[[str, int], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What was measured of every name and seed (``NAME SEED``); what is not kept yet is measured, seed by seed."""
    results, names = read(path), list(names)
    for seed in seeds:
        for name in names:
            if f"{name} {seed}" not in results:
                results[f"{name} {seed}"] = measure(name, seed)
                write(path, results)
    return results


def over_seeds(values: Sequence[float], digits: int = 3) -> str:
    """The mean over seeds with its 95% interval by Student's t; fewer than three values each alone."""
    from scipy.stats import t

    if len(values) < 3:
        return ", ".join(f"{value:.{digits}f}" for value in values) or "-"
    interval = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.{digits}f} ± {interval:.{digits}f}"
