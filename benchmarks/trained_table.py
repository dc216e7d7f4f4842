"""Strategies on a table of trained transformers: sub-networks of MiniLM with one number of heads and one width.

Every one of the 504 sub-networks that keep one to four of MiniLM's six layers was meta-trained by itself for 16 steps
on ICD-10-CM, from the pretrained weights, and judged on the same 100 meta-validation episodes: a short training, so the
table holds the noise of a short training, too. All kept layers have the same number of heads and the same width of the
feed-forward, unlike in the benchmark ``bert_table``, whose weights come from one supernet.

The table is stored in ``benchmarks/trained_table.json``, written one row at a time; delete the file to measure it
again, which takes about 25 minutes on one core.

usage: python -m benchmarks.run trained_table
       python -m benchmarks.trained_table   (trains the rows that the file lacks)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.contest import Contest, compare
from benchmarks.plain_training import plain
from benchmarks.table import Table, machine
from nas_meta import Architecture, SearchSpace

RESULTS = Path(__file__).with_suffix(".json")
LAYERS, MOST_LAYERS, HEADS, WIDTHS = 6, 4, (12, 6, 3), (1536, 768, 384)
CONFIG = {
    "space": {"name": "bert-subnet", "heads": [1.0, 0.5, 0.25], "ffn": [1.0, 0.5, 0.25]},
    "tasks": {"source": "icd10", "ways": 5, "shots": 1, "queries": 3},
    "learner": {"name": "protonet", "steps": 16, "lr": 5e-5, "head": "none"},
    "evaluation": {"episodes": 100},
}


class Shapes(SearchSpace):
    """Which layers to keep, and the number of heads and the width that all of them have."""

    def choices(self):
        keeps = {f"keep{i}": [True, False] for i in range(LAYERS)}
        return {**keeps, "heads": list(HEADS), "ffn": list(WIDTHS)}

    def build(self, architecture):
        raise AssertionError("a table, not a model")

    def problem(self, architecture):
        kept = len(kept_layers(architecture))
        return None if 1 <= kept <= MOST_LAYERS else f"it keeps {kept} layers; expected 1 to {MOST_LAYERS}"

    def counts(self, architecture, tokens):
        return {"flops": look_up(architecture)["flops"]}


def kept_layers(architecture: Mapping) -> list[int]:
    """The indices of the layers that an architecture of :class:`Shapes` keeps."""
    return [i for i in range(LAYERS) if architecture[f"keep{i}"]]


def key(architecture: Architecture) -> str:
    """The name of an architecture in the stored table, such as ``0,2,5 heads 6 ffn 768``."""
    layers = ",".join(map(str, kept_layers(architecture)))
    return f"{layers} heads {architecture['heads']} ffn {architecture['ffn']}"


def all_architectures() -> list[Architecture]:
    """Every architecture of the space, once."""
    space = Shapes()
    found = [space.canonical(dict(zip(space.table, values, strict=True))) for values in product(
        *(choice.values for choice in space.table.values())
    )]  # fmt: skip
    return [a for a in found if space.problem(a) is None]


def make_table() -> None:
    """Trains the architectures that the stored table lacks, in random order, and stores each one at once."""
    import torch

    from benchmarks.timed_search import evaluation_of
    from nas_meta.evaluation.trial import result_of

    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["table"] if RESULTS.is_file() else {}
    torch.set_num_threads(1)
    evaluation = evaluation_of(plain(CONFIG))
    every = all_architectures()
    for i in np.random.default_rng(0).permutation(len(every)):
        shape = every[i]
        if key(shape) in rows:
            continue
        values = {f"layer{n}.keep": n in kept_layers(shape) for n in range(LAYERS)}
        for n in kept_layers(shape):
            values |= {f"layer{n}.heads": shape["heads"], f"layer{n}.ffn": shape["ffn"]}
        metrics = result_of(evaluation.trial(evaluation.space.canonical(values), 0, keep_above=2.0)).metrics
        rows[key(shape)] = [round(metrics["accuracy"], 6), int(metrics["flops"])]
        write(rows)


def write(rows: Mapping[str, list[float]]) -> None:
    """Stores the table, one architecture per line."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(rows.items()))
    RESULTS.write_text(f'{{"machine": {json.dumps(machine())}, "table": {{\n{lines}\n}}}}\n', encoding="utf-8")


@cache
def table() -> dict[str, list[float]]:
    """The stored table, measured first where rows are missing: accuracy and FLOPs by :func:`key`."""
    if not RESULTS.is_file():
        make_table()
    return json.loads(RESULTS.read_text(encoding="utf-8"))["table"]


def look_up(architecture: Architecture) -> dict[str, float]:
    """Metrics of an architecture: accuracy from 0 to 1, and FLOPs."""
    accuracy, flops = table()[key(architecture)]
    return {"accuracy": accuracy, "flops": flops}


def contest() -> Contest:
    """What the strategies search here."""
    truth = np.array([(accuracy, -flops) for accuracy, flops in table().values()])
    return Contest("trained_table", Shapes(), look_up, truth, (25, 50, 100, 200), scale=100)


def measure() -> Table:
    """Median and quartiles after several numbers of evaluations, one row per strategy and number of objectives."""
    return compare(contest())


if __name__ == "__main__":
    make_table()
