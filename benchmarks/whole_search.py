"""A search as a user runs it, in a process of its own, and what its winner gains over the models that it began with."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.startup import COMMAND
from benchmarks.table import Table
from nas_meta.journal.compared_models import UNTRAINED

WHOLE = "the whole model trained alike"


def measure(config: Path, seed: int) -> dict[str, Any]:
    """Runs ``nas-meta search`` once.

    Args:
        config: config of the search.
        seed: seed of the search.

    Returns:
        Seconds, the winner with its accuracy and share of FLOPs, and paired differences from every reference.
    """
    from nas_meta import load_run
    from nas_meta.journal.verdict import paired_difference

    with tempfile.TemporaryDirectory() as folder:
        arguments = ["search", str(config), "--run-dir", f"{folder}/run", "--set", f"seed={seed}"]
        started = time.perf_counter()
        subprocess.run([*COMMAND, *arguments], check=True)
        seconds = time.perf_counter() - started
        run = load_run(f"{folder}/run")
        report, best = run.report, run.best
        right = {**report["right"]["references"], **report["right"]["comparisons"]}
        own, tested = report["right"]["trials"][str(best.id)], run.test_of(best)
        differences = {other: paired_difference(own, counts, report["queries"]) for other, counts in right.items()}
        return {
            "seconds": seconds,
            "architecture": dict(best.architecture),
            "accuracy": tested["test_accuracy"],
            "interval": tested["test_accuracy_ci95"],
            "flops": best.metrics["flops"] / report["references"][UNTRAINED]["flops"],
            "differences": {other: [found.mean, found.half] for other, found in differences.items() if found},
        }


def table(searches: Mapping[str, Mapping[str, Any]], of: str) -> Table:
    """One row per search.

    Args:
        searches: results of :func:`measure` by what the first column shows.
        of: heading of the first column.
    """
    rows = []
    for name, found in searches.items():
        layers = sum(value is True for value in found["architecture"].values())
        truncated = next((other for other in found["differences"] if other.startswith("the first")), "")
        rows.append(
            [
                name,
                f"{layers} layers, {100 * found['flops']:.0f} %",
                f"{100 * found['accuracy']:.1f} ± {100 * found['interval']:.1f}",
                *(_points(found["differences"].get(other)) for other in (UNTRAINED, truncated, WHOLE)),
                f"{found['seconds']:.0f} s",
            ]
        )
    header = (of, "winner, FLOPs of MiniLM's", "meta-test, %", "against the untouched MiniLM")
    return Table(
        (*header, "against the first layers trained alike", "against all of MiniLM trained alike", "whole search"),
        rows,
        "Accuracy over 600 meta-test episodes with its 95% interval; differences in points, paired over the episodes, "
        "with theirs.",
    )


def _points(difference: list[float] | None) -> str:
    """A difference and half its interval; a dash for six layers, of which no truncation is left to compare with."""
    return "-" if difference is None else f"{difference[0]:+.1f} ± {difference[1]:.1f}"
