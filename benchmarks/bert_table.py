"""Strategies on a second table: every sub-network of two or three of MiniLM's layers, with heads and widths.

The table holds 1,520 architectures. Accuracy is 5-way 1-shot on ICD-10-CM, with the weights that each architecture
inherits from a meta-trained supernet; the benchmark ``supernet`` measures how well that agrees with trained weights.
The table is stored in ``benchmarks/bert_table.json``; delete the file to measure it again, which takes about half an
hour on one core.

usage: python -m benchmarks.run bert_table
"""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import Contest, compare
from benchmarks.plain_training import plain
from benchmarks.table import Table, machine
from benchmarks.timed_search import evaluation_of
from nas_meta import Architecture

RESULTS = Path(__file__).with_suffix(".json")
SPACE = {"name": "bert-subnet", "heads": [1.0, 0.5], "ffn": [1.0, 0.25], "min_layers": 2, "max_layers": 3}


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


def contest() -> Contest:
    """What the strategies search here."""
    truth = np.array([(accuracy, -flops) for accuracy, flops in table().values()])
    return Contest("bert_table", space(), look_up, truth, (25, 50, 100, 200), scale=100, gaussian=(50, 25))


def measure() -> Table:
    """Median and quartiles after several numbers of evaluations, one row per strategy and number of objectives."""
    accuracies = 100 * np.array([accuracy for accuracy, _ in table().values()])
    return compare(
        contest(),
        f"The best of the {len(accuracies):,} architectures has {accuracies.max():.2f} %, their median is "
        f"{np.median(accuracies):.2f} %; the hypervolume is relative to the true front, which has 1.",
    )
