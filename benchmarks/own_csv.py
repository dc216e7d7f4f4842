"""What the search gains that ``nas-meta init`` writes for a CSV of a user's own, on intents of two kinds.

The CSV holds the training texts of BANKING77 (77 intents of a bank's customers) or CLINC150 (150 intents of ten
domains), with one example per class to learn from. ``nas-meta init`` looks at it and writes the config, ``nas-meta
search`` runs it as it is. Data sets that do not lie beside this checkout are left out. Run it on an idle machine.

Results are stored in ``benchmarks/own_csv.json``; delete a line there to measure it again.

usage: python -m benchmarks.run own_csv
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results_file, whole_search
from benchmarks.learners import BANKING
from benchmarks.recipe import CLINC
from benchmarks.startup import COMMAND
from benchmarks.table import Table
from benchmarks.user_tasks import read_csv

RESULTS = Path(__file__).with_suffix(".json")
DATA = {"BANKING77": BANKING / "polyai_train.csv", "CLINC150": CLINC / "data_full.json"}
SEEDS = (1, 2, 3)


def texts_of(file: Path) -> list[Sequence[str]]:
    """Training texts of a data set, each with its class."""
    return read_csv(file) if file.suffix == ".csv" else json.loads(file.read_text(encoding="utf-8"))["train"]


def measure_search(data: str, seed: int) -> dict[str, Any]:
    """Lets ``nas-meta init`` write a config for the texts of a data set, and runs it.

    Args:
        data: a name in ``DATA``.
        seed: seed of the search.
    """
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "intents.csv"
        with texts.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "intent"), *texts_of(DATA[data])])
        config = texts.with_suffix(".yaml")
        subprocess.run([*COMMAND, "init", str(texts), "--to", str(config)], check=True)
        return whole_search.measure(config, seed)


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per data set and seed."""
    names = {f"{data} {seed}": f"{data}, {seed}" for data in DATA for seed in SEEDS}
    return whole_search.table({name: results[key] for key, name in names.items() if key in results}, "data, seed")


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    present = [data for data, file in DATA.items() if file.is_file()]
    return table(results_file.measure_missing(RESULTS, present, SEEDS, measure_search))


if __name__ == "__main__":
    sys.stdout.write(table(results_file.read(RESULTS)).markdown() + "\n")
