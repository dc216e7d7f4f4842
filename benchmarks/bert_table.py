"""Strategies on a second table: every sub-network of two or three of MiniLM's layers, with heads and widths.

1,520 architectures; accuracy is 5-way 1-shot on ICD-10-CM with the weights that each inherits from a meta-trained
supernet (how well those agree with trained ones stands in the table of ``supernet``). The table is measured once and
kept in ``benchmarks/bert_table.json``; remove the file to measure it anew, in about half an hour of one core.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Table, machine
from benchmarks.tabular_search import ACCURACY, FLOPS, alone_on_a_core, cell, shares, trials
from benchmarks.timed_search import evaluation_of
from nas_meta import Architecture

KEPT = Path(__file__).with_suffix(".json")
SPACE = {"name": "bert-subnet", "heads": [1.0, 0.5], "ffn": [1.0, 0.25], "min_layers": 2, "max_layers": 3}
SEEDS, BUDGET, COLUMNS = 20, 200, (25, 50, 100, 200)
ONE = ("random", "evolution", "tpe", "surrogate")
SEVERAL = ("random", "nsga2", "motpe", "surrogate")


@cache
def space() -> Any:
    from search_spaces.bert_subnet import BertSubnet, BertSubnetOptions

    return BertSubnet(BertSubnetOptions(**{key: value for key, value in SPACE.items() if key != "name"}))


def all_architectures() -> list[Architecture]:
    """Every valid one, once."""
    table = space().table
    layers = range(space().dimensions["layers"])
    kinds = [(False, 0, 0), *product((True,), table["layer0.heads"].values, table["layer0.ffn"].values)]
    found = []
    for chosen in product(kinds, repeat=len(layers)):
        values = {}
        for i, (keep, heads, ffn) in enumerate(chosen):
            values |= {f"layer{i}.keep": keep}
            if keep:
                values |= {f"layer{i}.heads": heads, f"layer{i}.ffn": ffn}
        architecture = Architecture(values)
        if space().problem(architecture) is None:
            found.append(architecture)
    return found


def make_table() -> dict[str, list[float]]:
    """Accuracy and FLOPs by the id of an architecture: a supernet is trained, and everything judged with it."""
    from nas_meta.objectives import Objective
    from nas_meta.weights import unpacked
    from strategies.inherited import Inherited, supernet_encoder
    from strategies.supernet import SupernetJob, SupernetOptions

    evaluation = evaluation_of({"space": SPACE, "learner": {"name": "protonet"}, "evaluation": {"episodes": 200}})
    options = SupernetOptions(judged=1)
    progress = evaluation.run(SupernetJob(options, (Objective("accuracy"),), 1, 0))
    try:
        while True:
            next(progress)
    except StopIteration as end:
        weights = end.value.weights
    supernet = evaluation.space.supernet()
    supernet.load_state_dict(unpacked(bytes(weights)))
    judge = Inherited(evaluation, supernet, supernet_encoder(evaluation, supernet).eval(), options.texts)
    every = all_architectures()
    with judge.sharing():
        return {every[i].id: [m["accuracy"], m["flops"]] for i, m in judge.first(every)}


@cache
def table() -> dict[str, list[float]]:
    if not KEPT.is_file():
        rows = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in make_table().items())
        KEPT.write_text(f'{{"machine": {json.dumps(machine())}, "table": {{\n{rows}\n}}}}\n', encoding="utf-8")
    return json.loads(KEPT.read_text(encoding="utf-8"))["table"]


def look_up(architecture: Architecture) -> dict[str, float]:
    accuracy, flops = table()[architecture.id]
    return {"accuracy": accuracy, "flops": flops}


def run(job: tuple[str, bool, int]) -> np.ndarray:
    name, several, seed = job
    return np.array(trials(name, space(), look_up, BUDGET, seed, [ACCURACY, FLOPS] if several else [ACCURACY]))


def measure() -> Table:
    from threadpoolctl import threadpool_limits

    truth = np.array([(accuracy, -flops) for accuracy, flops in table().values()])
    started = time.time()
    contestants = [(name, False) for name in ONE] + [(name, True) for name in SEVERAL]
    jobs = [(*contestant, seed) for contestant in contestants for seed in range(SEEDS)]
    with threadpool_limits(1), ProcessPoolExecutor(initializer=alone_on_a_core) as pool:
        runs = list(pool.map(run, jobs))
    rows = []
    for name, several in contestants:
        own = [found for job, found in zip(jobs, runs, strict=True) if job[:2] == (name, several)]
        if several:
            found = np.array([shares(one, truth, COLUMNS) for one in own])
        else:
            curves = np.maximum.accumulate(np.array([one[:, 0] for one in own]), axis=1)
            found = 100 * curves[:, [n - 1 for n in COLUMNS]]
        what = "share of the hypervolume" if several else "best accuracy"
        rows.append([what, f"`{name}`", *(cell(found[:, i], 3 if several else 2) for i in range(len(COLUMNS)))])
    return Table(
        ("", "strategy", *map(str, COLUMNS)),
        rows,
        f"Median and quartiles over {SEEDS} seeds after so many evaluations. The best of the {len(truth):,} has "
        f"{100 * truth[:, 0].max():.2f} %, their median is {100 * np.median(truth[:, 0]):.2f} %; hypervolume of "
        "accuracy against FLOPs, the true front is 1. `auto` picks `surrogate`. "
        f"{(time.time() - started) / 60:.1f} minutes.",
    )
