"""The quickstart as a user runs it, with three seeds: what its winner gains over the model that the user has.

Every seed is one ``nas-meta search configs/quickstart.yaml`` in a process of its own. Run it on an idle machine.
Differences are paired over the 600 meta-test episodes.

Results are stored in ``benchmarks/quickstart.json``; delete a line there to measure it again.

usage: python -m benchmarks.run quickstart
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import results_file, whole_search
from benchmarks.table import Table

CONFIG = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
RESULTS = Path(__file__).with_suffix(".json")
SEEDS = (1, 2, 3)


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per seed."""
    searches = {str(seed): results[key] for seed in SEEDS if (key := f"quickstart {seed}") in results}
    return whole_search.table(searches, "seed")


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    found = results_file.measure_missing(
        RESULTS, ["quickstart"], SEEDS, lambda _, seed: whole_search.measure(CONFIG, seed)
    )
    return table(found)


if __name__ == "__main__":
    sys.stdout.write(table(results_file.read(RESULTS)).markdown() + "\n")
