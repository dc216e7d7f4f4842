"""What the strategy ``supernet`` is worth: how well inherited weights rank, what judging costs, which front it finds.

5-way 1-shot on ICD-10-CM with MiniLM, one core; seconds are those of the process, not of the clock.

- 24 random sub-networks of three or four layers, heads and widths included, in one range of parameters, are trained
  alone (60 steps from the pretrained weights) and judged with what they inherit, on the same 200 episodes.
- The same total time, supernet training included, for ``supernet``, ``evolution`` and ``random``: the hypervolume of
  accuracy above a half against the share of the whole encoder's FLOPs that is saved.

What was measured is kept in ``benchmarks/supernet.json`` and not measured again; delete a line there to measure it
anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.random_architectures import drawn
from benchmarks.table import Table
from benchmarks.timed_search import evaluation_of, search_within

KEPT = Path(__file__).with_suffix(".json")
COUNT, PARAMS = 24, (15.5e6, 17.5e6)
JUDGED = 100  # by the search among sub-networks, for the seconds that one takes
SPACE = {"name": "bert-subnet", "min_layers": 3, "max_layers": 4}
COMMON = {"learner": {"name": "protonet", "steps": 60}, "evaluation": {"episodes": 200, "test_best": 0}}
BUDGET = 600.0  # seconds for a whole search: about forty trials
SEEDS = (1, 2, 3)
STRATEGIES: dict[str, dict[str, Any]] = {
    "supernet": {"strategy": {"name": "supernet", "judged": 200}, "budget": {"trials": 18}},
    "evolution": {"strategy": {"name": "evolution"}, "budget": {"trials": 100}},
    "random": {"strategy": {"name": "random"}, "budget": {"trials": 100}},
}


def sub_networks(space: Any) -> list[Any]:
    """Random ones in the range of parameters, none twice."""
    return drawn(space, COUNT, 5, lambda a: PARAMS[0] <= space.count_params(a) <= PARAMS[1])


def trained(number: int) -> dict[str, float]:
    """One sub-network trained alone."""
    from nas_meta.evaluation import result_of

    evaluation = evaluation_of({"space": SPACE, **COMMON})
    architecture = sub_networks(evaluation.space)[number]
    started = time.process_time()
    metrics = result_of(evaluation.trial(architecture, 1)).metrics
    return {**{k: metrics[k] for k in ("accuracy", "params")}, "seconds": time.process_time() - started}


def inherited(_: int) -> dict[str, Any]:
    """A supernet with default options, what its search costs, and what the sub-networks inherit from it."""
    from nas_meta.objectives import Objective
    from nas_meta.weights import unpacked
    from strategies.supernet import SupernetJob, SupernetOptions

    evaluation = evaluation_of({"space": SPACE, **COMMON})
    objectives = (Objective("accuracy"), Objective("flops", "minimize"))
    options = SupernetOptions(judged=JUDGED)
    job = SupernetJob(options, objectives, 12, 0)
    clock = {0: time.process_time()}
    progress = evaluation.run(job)
    try:
        while True:
            clock[next(progress).step] = time.process_time()
    except StopIteration as end:
        weights = end.value.weights
    supernet = evaluation.space.supernet()
    supernet.load_state_dict(unpacked(bytes(weights)))
    return {
        "train_seconds": clock[options.steps] - clock[0],
        "first_seconds": (clock[options.steps + JUDGED] - clock[options.steps]) / JUDGED,
        "second_seconds": (clock[job.steps] - clock[options.steps + JUDGED]) / job.again,
        **judged(evaluation, supernet),
    }


def untrained(_: int) -> dict[str, list[float]]:
    """What the sub-networks inherit from the pretrained weights as they are."""
    evaluation = evaluation_of({"space": SPACE, **COMMON})
    return judged(evaluation, evaluation.space.supernet())


def judged(evaluation: Any, supernet: Any) -> dict[str, list[float]]:
    """Inherited accuracy of every sub-network, on few texts (``first``) and on the episodes of trials (``second``)."""
    from strategies.inherited import Inherited, supernet_encoder
    from strategies.supernet import SupernetOptions

    judge = Inherited(evaluation, supernet, supernet_encoder(evaluation, supernet), SupernetOptions().texts)
    some = sub_networks(evaluation.space)
    found = {name: dict(call(some)) for name, call in (("first", judge.first), ("second", judge.second))}
    return {name: [rows[i]["accuracy"] for i in range(COUNT)] for name, rows in found.items()}


def searched(strategy: str) -> Callable[[int], dict[str, Any]]:
    """How the front of a strategy's search is measured, by seed."""

    def measure_seed(seed: int) -> dict[str, Any]:
        from nas_meta.objectives import hypervolume

        document = {**COMMON, "seed": seed, **STRATEGIES[strategy], "space": {"name": "bert-subnet"}}
        found = search_within(document, BUDGET)
        points = [(t.metrics["accuracy"], t.metrics["flops"]) for t in found.trials]
        whole = evaluation_of(document).space
        flops = whole.counts(whole.canonical({n: c.values[0] for n, c in whole.table.items()}), 32)["flops"]
        values = np.array([(accuracy, 1 - spent / flops) for accuracy, spent in points])
        volume = hypervolume(values, np.array([0.5, 0.0])) / 0.5
        return {"points": points, "seconds": found.seconds, "hypervolume": float(volume)}

    return measure_seed


PARTS: dict[str, tuple[Callable[[int], dict[str, Any]], tuple[int, ...]]] = {
    "trained": (trained, tuple(range(COUNT))),
    "inherited": (inherited, (0,)),
    "untrained": (untrained, (0,)),
    **{strategy: (searched(strategy), SEEDS) for strategy in STRATEGIES},
}


def agreement(results: dict[str, dict[str, Any]], source: str, which: str) -> str:
    """Kendall's τ of inherited and trained accuracy, the mean distance in points, the mean difference in points."""
    from scipy.stats import kendalltau

    alone = np.array([results[f"trained {i}"]["accuracy"] for i in range(COUNT)])
    own = np.array(results[f"{source} 0"][which])
    apart, bias = 100 * float(np.abs(own - alone).mean()), 100 * float((own - alone).mean())
    return f"τ {kendalltau(own, alone)[0]:.2f}, {apart:.1f} points apart ({bias:+.1f})"


def table(results: dict[str, dict[str, Any]]) -> Table:
    from scipy.stats import kendalltau

    found = results["inherited 0"]
    trials = [results[f"trained {i}"] for i in range(COUNT)]
    alone = mean(t["seconds"] for t in trials)
    by_size = kendalltau([t["params"] for t in trials], [t["accuracy"] for t in trials])[0]
    rows = [["number of parameters against accuracy", f"τ {by_size:.2f}"]]
    for which, name in (("second", "the 200 episodes of trials"), ("first", "few texts")):
        rows.append([f"pretrained weights against trained, {name}", agreement(results, "untrained", which)])
        rows.append([f"inherited against trained, {name}", agreement(results, "inherited", which)])
        seconds = found[f"{which}_seconds"]
        rows.append([
            f"sub-networks a minute, {name}",
            f"{60 / seconds:.0f} inherited, {60 / alone:.1f} trained: {alone / seconds:.0f} times",
        ])  # fmt: skip
    rows.append(["training of the supernet", f"{found['train_seconds']:.0f} s"])
    for strategy in STRATEGIES:
        searches = [results[f"{strategy} {seed}"] for seed in SEEDS if f"{strategy} {seed}" in results]
        trials = f" ({', '.join(str(len(s['points'])) for s in searches)} trials)" if searches else ""
        volumes = results_file.over_seeds([s["hypervolume"] for s in searches])
        rows.append([f"hypervolume after {BUDGET:.0f} s, `{strategy}`", volumes + trials])
    return Table(
        ("what", "found"),
        rows,
        f"{COUNT} sub-networks of three or four layers with {PARAMS[0] / 1e6:g} to {PARAMS[1] / 1e6:g} M parameters; "
        f"seconds of one core; hypervolumes over seeds {', '.join(map(str, SEEDS))} with 95% intervals, accuracy from "
        "0.5 to 1 and FLOPs saved from 0 to 1.",
    )


def measure() -> Table:
    results = results_file.read(KEPT)
    # A seed of every search before the next seed.
    calls = sorted(
        ((call, part, number) for part, (call, numbers) in PARTS.items() for number in numbers),
        key=lambda row: row[2] if row[1] in STRATEGIES else 0,
    )
    for call, part, number in calls:
        if f"{part} {number}" not in results:
            results[f"{part} {number}"] = call(number)
            results_file.write(KEPT, results)
    return table(results)
