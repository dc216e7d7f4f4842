"""The strategy ``supernet``: how well inherited weights rank, and what evaluating them costs.

5-way 1-shot episodes of ICD-10-CM with MiniLM, on one core, in CPU time: 24 random sub-networks of three or four
layers, with choices of heads and widths, in one range of parameters. Each is trained alone (60 steps from the
pretrained weights) and evaluated with inherited weights, on the same 200 episodes.

Results are stored in ``benchmarks/supernet.json``; delete a line there to measure it again.

usage: python -m benchmarks.run supernet
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.plain_training import SHARES, plain
from benchmarks.random_architectures import sample_distinct
from benchmarks.table import Table
from benchmarks.timed_search import evaluation_of

RESULTS = Path(__file__).with_suffix(".json")
COUNT, PARAMS = 24, (15.5e6, 17.5e6)
EVALUATED = 100  # sub-networks that the supernet's search evaluates, to time a single one
SPACE = {"name": "bert-subnet", "min_layers": 3, "max_layers": 4, **SHARES}
DOCUMENT = plain(
    {"space": SPACE, "learner": {"name": "protonet", "steps": 60}, "evaluation": {"episodes": 200, "test_best": 0}}
)


def sub_networks(space: Any) -> list[Any]:
    """Distinct random sub-networks in the range of parameters, the same in every call."""
    return sample_distinct(space, COUNT, 5, lambda a: PARAMS[0] <= space.count_params(a) <= PARAMS[1])


def trained(number: int) -> dict[str, float]:
    """Trains one sub-network alone.

    Args:
        number: index of the sub-network.

    Returns:
        Accuracy, number of parameters and CPU seconds.
    """
    from nas_meta.evaluation.trial import result_of

    evaluation = evaluation_of(DOCUMENT)
    architecture = sub_networks(evaluation.space)[number]
    started = time.process_time()
    metrics = result_of(evaluation.trial(architecture, 1)).metrics
    return {**{k: metrics[k] for k in ("accuracy", "params")}, "seconds": time.process_time() - started}


def inherited(_: int) -> dict[str, Any]:
    """Trains a supernet with default options and evaluates the sub-networks with inherited weights.

    Returns:
        CPU seconds of supernet training and of one evaluation on few texts (``first``) and on the trials' episodes
        (``second``), and the accuracies of :func:`inherited_accuracies`.
    """
    from nas_meta.core.objectives import Objective
    from nas_meta.models.state import deserialize_state
    from strategies.supernet.search import SupernetJob, SupernetOptions

    evaluation = evaluation_of(DOCUMENT)
    objectives = (Objective("accuracy"), Objective("flops", "minimize"))
    options = SupernetOptions(judged=EVALUATED)
    job = SupernetJob(options, objectives, 12, 0)
    clock = {0: time.process_time()}  # CPU time at the end of every step of the job
    progress = evaluation.run(job)
    try:
        while True:
            clock[next(progress).step] = time.process_time()
    except StopIteration as end:
        weights = end.value.weights
    supernet = evaluation.space.supernet()
    supernet.load_state_dict(deserialize_state(bytes(weights)))
    return {
        "train_seconds": clock[options.steps] - clock[0],
        "first_seconds": (clock[options.steps + EVALUATED] - clock[options.steps]) / EVALUATED,
        "second_seconds": (clock[job.steps] - clock[options.steps + EVALUATED]) / job.again,
        **inherited_accuracies(evaluation, supernet),
    }


def untrained(_: int) -> dict[str, list[float]]:
    """Evaluates the sub-networks with the pretrained weights, without supernet training.

    Returns:
        The accuracies of :func:`inherited_accuracies`.
    """
    evaluation = evaluation_of(DOCUMENT)
    return inherited_accuracies(evaluation, evaluation.space.supernet())


def inherited_accuracies(evaluation: Any, supernet: Any) -> dict[str, list[float]]:
    """Inherited accuracies of all sub-networks, on few texts (``first``) and on the trials' episodes (``second``)."""
    from strategies.supernet.inherited_weights import Inherited, supernet_encoder
    from strategies.supernet.search import SupernetOptions

    judge = Inherited(evaluation, supernet, supernet_encoder(evaluation, supernet), SupernetOptions().texts)
    architectures = sub_networks(evaluation.space)
    found = {name: dict(call(architectures)) for name, call in (("first", judge.first), ("second", judge.second))}
    return {name: [rows[i]["accuracy"] for i in range(COUNT)] for name, rows in found.items()}


PARTS: dict[str, tuple[Callable[[int], dict[str, Any]], tuple[int, ...]]] = {
    "trained": (trained, tuple(range(COUNT))),
    "inherited": (inherited, (0,)),
    "untrained": (untrained, (0,)),
}


def agreement(results: dict[str, dict[str, Any]], source: str, which: str) -> str:
    """Agreement of inherited with trained accuracy, as text.

    Args:
        results: all results.
        source: ``inherited`` or ``untrained``.
        which: ``first`` for few texts, ``second`` for the trials' episodes.

    Returns:
        Kendall's τ, the mean absolute difference in points, and in parentheses the mean difference.
    """
    from scipy.stats import kendalltau

    alone = np.array([results[f"trained {i}"]["accuracy"] for i in range(COUNT)])
    own = np.array(results[f"{source} 0"][which])
    apart, bias = 100 * float(np.abs(own - alone).mean()), 100 * float((own - alone).mean())
    return f"τ {kendalltau(own, alone)[0]:.2f}, {apart:.1f} points apart ({bias:+.1f})"


def table(results: dict[str, dict[str, Any]]) -> Table:
    """Agreement and speed, one measurement per row."""
    from scipy.stats import kendalltau

    found = results["inherited 0"]
    trials = [results[f"trained {i}"] for i in range(COUNT)]
    per_trial = mean(t["seconds"] for t in trials)
    by_size = kendalltau([t["params"] for t in trials], [t["accuracy"] for t in trials])[0]
    rows = [["number of parameters against accuracy", f"τ {by_size:.2f}"]]
    for which, name in (("second", "the trials' 200 episodes"), ("first", "few texts")):
        rows.append([f"pretrained weights against trained weights, {name}", agreement(results, "untrained", which)])
        rows.append([f"inherited weights against trained weights, {name}", agreement(results, "inherited", which)])
        seconds = found[f"{which}_seconds"]
        rows.append([
            f"sub-networks per minute, {name}",
            f"{60 / seconds:.0f} inherited, {60 / per_trial:.1f} trained: {per_trial / seconds:.0f} times",
        ])  # fmt: skip
    rows.append(["supernet training", f"{found['train_seconds']:.0f} s"])
    return Table(
        ("measurement", "result"),
        rows,
        f"{COUNT} sub-networks of three or four layers with {PARAMS[0] / 1e6:g} to {PARAMS[1] / 1e6:g} M parameters; "
        "times on one core. Points apart is the mean absolute difference, with the mean difference in parentheses.",
    )


def measure() -> Table:
    """Measures what the results file lacks and returns the table."""
    results = results_file.read(RESULTS)
    for part, (call, numbers) in PARTS.items():
        for number in numbers:
            if f"{part} {number}" not in results:
                results[f"{part} {number}"] = call(number)
                results_file.write(RESULTS, results)
    return table(results)
