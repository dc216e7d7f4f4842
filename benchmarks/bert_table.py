"""Strategies on a second table: every sub-network of two or three of MiniLM's layers, with heads and widths.

The table holds 1,520 architectures. Accuracy is 5-way 1-shot on ICD-10-CM, with the weights that each architecture
inherits from a meta-trained supernet; the benchmark ``supernet`` measures how well that agrees with trained weights.
The table is stored in ``benchmarks/bert_table.json``; delete the file to measure it again, which takes about half an
hour on one core.

usage: python -m benchmarks.run bert_table
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

from benchmarks.plain_training import plain
from benchmarks.table import Table, machine
from benchmarks.tabular_search import (
    ACCURACY,
    FLOPS,
    hypervolume_shares,
    median_and_quartiles,
    search_table,
    use_one_thread,
)
from benchmarks.timed_search import evaluation_of
from nas_meta import Architecture

RESULTS = Path(__file__).with_suffix(".json")
SPACE = {"name": "bert-subnet", "heads": [1.0, 0.5], "ffn": [1.0, 0.25], "min_layers": 2, "max_layers": 3}
SEEDS, BUDGET, COLUMNS = 20, 200, (25, 50, 100, 200)
SINGLE_OBJECTIVE = ("random", "evolution", "tpe", "surrogate")
MULTI_OBJECTIVE = ("random", "nsga2", "motpe", "surrogate")


@cache
def space() -> Any:
    """The search space of the table."""
    from search_spaces.pretrained.bert_subnet import BertSubnet, BertSubnetOptions

    return BertSubnet(BertSubnetOptions(**{key: value for key, value in SPACE.items() if key != "name"}))


def all_architectures() -> list[Architecture]:
    """Every valid architecture of the space, once."""
    table = space().table
    layers = range(space().dimensions["layers"])
    layer_options = [(False, 0, 0), *product((True,), table["layer0.heads"].values, table["layer0.ffn"].values)]
    found = []
    for chosen in product(layer_options, repeat=len(layers)):
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
    """Trains a supernet and evaluates every architecture with the weights it inherits.

    Returns:
        Accuracy and FLOPs by the id of the architecture.
    """
    from nas_meta.core.objectives import Objective
    from nas_meta.models.state import deserialize_state
    from strategies.supernet.inherited_weights import Inherited, supernet_encoder
    from strategies.supernet.search import SupernetJob, SupernetOptions

    document = {"space": SPACE, "learner": {"name": "protonet"}, "evaluation": {"episodes": 200}}
    evaluation = evaluation_of(plain(document))
    options = SupernetOptions(judged=1)
    progress = evaluation.run(SupernetJob(options, (Objective("accuracy"),), 1, 0))
    try:
        while True:
            next(progress)
    except StopIteration as end:
        weights = end.value.weights
    supernet = evaluation.space.supernet()
    supernet.load_state_dict(deserialize_state(bytes(weights)))
    judge = Inherited(evaluation, supernet, supernet_encoder(evaluation, supernet).eval(), options.texts)
    every = all_architectures()
    with judge.sharing():
        return {every[i].id: [m["accuracy"], m["flops"]] for i, m in judge.first(every)}


@cache
def table() -> dict[str, list[float]]:
    """The stored table, measured first if it is missing: accuracy and FLOPs by the id of the architecture."""
    if not RESULTS.is_file():
        rows = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in make_table().items())
        RESULTS.write_text(f'{{"machine": {json.dumps(machine())}, "table": {{\n{rows}\n}}}}\n', encoding="utf-8")
    return json.loads(RESULTS.read_text(encoding="utf-8"))["table"]


def look_up(architecture: Architecture) -> dict[str, float]:
    """Metrics of an architecture: accuracy from 0 to 1, and FLOPs."""
    accuracy, flops = table()[architecture.id]
    return {"accuracy": accuracy, "flops": flops}


def run(job: tuple[str, bool, int]) -> np.ndarray:
    """Runs one search.

    Args:
        job: name of the strategy, whether FLOPs are a second objective, and the seed.

    Returns:
        ``[trials, objectives]`` signed objective values of every trial in order.
    """
    name, multi, seed = job
    return np.array(search_table(name, space(), look_up, BUDGET, seed, [ACCURACY, FLOPS] if multi else [ACCURACY]))


def measure() -> Table:
    """Median and quartiles after several numbers of evaluations, one row per strategy and number of objectives."""
    from threadpoolctl import threadpool_limits

    truth = np.array([(accuracy, -flops) for accuracy, flops in table().values()])
    started = time.time()
    strategies = [(name, False) for name in SINGLE_OBJECTIVE] + [(name, True) for name in MULTI_OBJECTIVE]
    jobs = [(*strategy, seed) for strategy in strategies for seed in range(SEEDS)]
    with threadpool_limits(1), ProcessPoolExecutor(initializer=use_one_thread) as pool:
        runs = list(pool.map(run, jobs))
    rows = []
    for name, multi in strategies:
        of_seeds = [values for job, values in zip(jobs, runs, strict=True) if job[:2] == (name, multi)]
        if multi:
            found = np.array([hypervolume_shares(values, truth, COLUMNS) for values in of_seeds])
        else:
            curves = np.maximum.accumulate(np.array([values[:, 0] for values in of_seeds]), axis=1)
            found = 100 * curves[:, [n - 1 for n in COLUMNS]]
        metric = "share of the hypervolume" if multi else "best accuracy"
        cells = (median_and_quartiles(found[:, i], 3 if multi else 2) for i in range(len(COLUMNS)))
        rows.append([metric, f"`{name}`", *cells])
    return Table(
        ("", "strategy", *map(str, COLUMNS)),
        rows,
        f"Median and quartiles over {SEEDS} seeds after the number of evaluations at the head of each column. The best "
        f"of the {len(truth):,} architectures has {100 * truth[:, 0].max():.2f} %, their median is "
        f"{100 * np.median(truth[:, 0]):.2f} %; the hypervolume is that of accuracy against FLOPs, relative to the "
        "true front, which has 1. `auto` picks `surrogate`. "
        f"The benchmark took {(time.time() - started) / 60:.1f} minutes.",
    )
