"""What stopping trials early saves: steps spent and accuracy found by each rule, and how well a rung ranks the end.

The rules are functions of the reports, so one set of trials, trained to its end with a report at every rung, tells
what each of them would have done: it is trained once, kept in ``stopping.json`` and replayed.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Table
from nas_meta.core.objectives import Objective, hypervolume, signed_values
from nas_meta.strategy.stopping.registry import RULES
from nas_meta.strategy.stopping.rule import Report

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
CURVES = Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).parents[1] / "docs" / "rungs.png"
SEEDS, TRIALS, STEPS, QUERIES = (1, 2, 3), 24, 60, 25
WORKERS, ORDERS = 2, 20
RUNGS, EPISODES = (4, 8, 15, 30), 100
ACCURACY, FLOPS = Objective("accuracy"), Objective("flops", "minimize")
STOPPING: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "asha": {"name": "asha"},
    "asha, η 2, three rungs": {"name": "asha", "eta": 2, "rungs": [8, 15, 30]},
    "median": {"name": "median"},
    "racing": {"name": "racing"},
    "racing, 100 episodes": {"name": "racing", "episodes": 100},
}


def trained(seed: int) -> list[dict[str, Any]]:
    """The first random architectures of a seed, each trained to its end; those in the file are not trained again.

    A row holds the architecture, its size, its metrics and meta-test at the end, and for every rung the number of query
    examples that were right in each validation episode.
    """
    import nas_meta
    from nas_meta.config.components import make_evaluation, prepare
    from nas_meta.config.resolved import read_config

    rows = kept()
    resolved = read_config(CONFIG, [f"seed={seed}", "strategy.name=random", "evaluation.interim_every=0"])
    space, tasks, shape = prepare(resolved)
    space.prepare(tasks, seed)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation = evaluation.with_rungs(RUNGS, EPISODES)
    evaluation.setup()
    context = nas_meta.SearchContext(space, resolved.config.directed, TRIALS, 1, seed)
    strategy = resolved.plugin("strategy")(context, resolved.options["strategy"])
    own = rows.setdefault(str(seed), [])
    for number in range(TRIALS):
        architecture = strategy.ask()
        if number >= len(own):
            own.append(one(evaluation, architecture, seed))
            CURVES.write_text(json.dumps(rows), encoding="utf-8")
        metrics = own[number]["metrics"]
        values = signed_values(metrics, resolved.config.directed)
        strategy.tell(nas_meta.Outcome(architecture, "completed", metrics, values[0], values))
    strategy.close()
    return own


def one(evaluation: Any, architecture: Any, seed: int) -> dict[str, Any]:
    """A trial with its reports, meta-tested."""
    trial, rungs = evaluation.trial(architecture, seed, keep_above=0.0), {}
    while True:
        try:
            progress = next(trial)
        except StopIteration as end:
            result = end.value
            break
        if progress.pauses:
            rungs[str(progress.step)] = {
                "right": np.rint(progress.scores * QUERIES).astype(int).tolist(),
                "seconds": progress.metrics["evaluate_seconds"],
            }
    test = evaluation.test(architecture, result.weights).metrics
    return {
        "architecture": dict(architecture.values), "metrics": dict(result.metrics), "test": dict(test), "rungs": rungs,
    }  # fmt: skip


def kept() -> dict[str, list[dict[str, Any]]]:
    """What was trained so far, by seed."""
    return json.loads(CURVES.read_text(encoding="utf-8")) if CURVES.is_file() else {}


@dataclass(frozen=True)
class Replay:
    """What a search with a rule would have done: steps and seconds spent, and the trials that came to their end."""

    steps: int
    seconds: float
    completed: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any]:
        return max(self.completed, key=lambda row: row["metrics"]["accuracy"])


def replay(rows: Sequence[dict[str, Any]], given: dict[str, Any], objectives: Sequence[Objective]) -> Replay:
    """Sends trained trials through a rule, in the order in which workers of one speed would report them."""
    options = RULES[given["name"]].Options(**given).resolved(STEPS, episodes=40)
    rule, ends = RULES[options.name](options, objectives), (*options.rungs, STEPS)
    waiting = iter(range(len(rows)))
    # Who is next: the time in steps, the trial, how many rungs are behind it.
    clock = [(ends[0], trial, 0) for trial in islice(waiting, WORKERS)]
    steps, seconds, completed = 0, 0.0, []
    while clock:
        now, trial, behind = heapq.heappop(clock)
        row, here = rows[trial], ends[behind]
        if here < STEPS and rule.decide(report(trial, row, here, options.episodes, objectives)):
            heapq.heappush(clock, (now + ends[behind + 1] - here, trial, behind + 1))
            continue
        steps += here
        seconds += cost(row, here, options.rungs)
        if here == STEPS:
            completed.append(row)
        for following in islice(waiting, 1):
            heapq.heappush(clock, (now + ends[0], following, 0))
    return Replay(steps, seconds, completed)


def report(trial: int, row: dict[str, Any], step: int, episodes: int, objectives: Sequence[Objective]) -> Report:
    """What a trial reports at a rung, as a search would."""
    scores = at_rung(row, step, episodes)
    return Report(trial, step, signed_values({**row["metrics"], "accuracy": scores.mean()}, objectives), scores)


def at_rung(row: dict[str, Any], step: int, episodes: int) -> np.ndarray:
    """Accuracy on each of the first validation episodes at a rung."""
    return np.array(row["rungs"][str(step)]["right"][:episodes]) / QUERIES


def cost(row: dict[str, Any], steps: int, rungs: Sequence[int]) -> float:
    """Seconds of a trial up to a step: its share of the training, validation at rungs, and at the end the last one."""
    looking = sum(r["seconds"] for r in row["rungs"].values())
    training = (row["metrics"]["train_seconds"] - looking) * steps / STEPS
    looked = sum(row["rungs"][str(r)]["seconds"] for r in rungs if r <= steps)
    return training + looked + (row["metrics"]["evaluate_seconds"] if steps == STEPS else 0.0)


def agreement(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's τ-b."""
    from scipy.stats import kendalltau

    return float(kendalltau(one, other).statistic)


def agreements(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Kendall's τ of the final meta-validation accuracy with that of every rung, with FLOPs and with meta-test."""
    final = [row["metrics"]["accuracy"] for row in rows]
    return {
        **{str(r): agreement([at_rung(row, r, EPISODES).mean() for row in rows], final) for r in RUNGS},
        "flops": agreement([row["metrics"]["flops"] for row in rows], final),
        "test": agreement([row["test"]["test_accuracy"] for row in rows], final),
    }


def volume(rows: Sequence[dict[str, Any]], every: Sequence[dict[str, Any]]) -> float:
    """Hypervolume of accuracy and FLOPs, both scaled to the range that all trials have."""
    values = np.array([signed_values(row["metrics"], [ACCURACY, FLOPS]) for row in every])
    own = np.array([signed_values(row["metrics"], [ACCURACY, FLOPS]) for row in rows])
    # A little below the worst, so that the ends of the front count.
    low, high = values.min(0), values.max(0)
    return hypervolume((own - low) / (high - low), np.full(2, -0.1))


def orders(curves: Mapping[int, Sequence[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """The trials of every seed in random orders, so that the luck of a good first one averages out."""
    rng = np.random.default_rng(0)
    return [[own[i] for i in rng.permutation(len(own))] for own in curves.values() for _ in range(ORDERS)]


def compared(runs: Sequence[Replay], everything: Sequence[Replay]) -> list[str]:
    """What a rule saved and found, beside the same trials without stopping."""
    pairs = list(zip(runs, everything, strict=True))
    tests = [(r.best["test"], e.best["test"]) for r, e in pairs]
    best, width = (100 * np.mean([one[key] for one, _ in tests]) for key in ("test_accuracy", "test_accuracy_ci95"))
    gains = [100 * (one["test_accuracy"] - other["test_accuracy"]) for one, other in tests]
    return [
        f"{np.mean([r.steps for r in runs]):.0f}",
        f"{1 - np.mean([r.steps / e.steps for r, e in pairs]):.0%}",
        f"{1 - np.mean([r.seconds / e.seconds for r, e in pairs]):.0%}",
        f"{np.mean([len(r.completed) for r in runs]):.1f}",
        f"{best:.1f} ± {width:.1f} %",
        f"{np.mean(gains):+.2f}",
        f"{np.mean([r.best is e.best for r, e in pairs]):.0%}",
        f"{np.mean([volume(r.completed, e.completed) / volume(e.completed, e.completed) for r, e in pairs]):.3f}",
    ]


def measure() -> Table:
    curves = {seed: trained(seed) for seed in SEEDS}
    draw(curves)
    rows, shuffled = [], orders(curves)
    for words, objectives in (("accuracy", [ACCURACY]), ("accuracy, FLOPs", [ACCURACY, FLOPS])):
        runs = {name: [replay(own, given, objectives) for own in shuffled] for name, given in STOPPING.items()}
        rows += [[words, name, *compared(found, runs["none"])] for name, found in runs.items()]
    found = [agreements(own) for own in curves.values()]
    tau = {name: np.mean([one[name] for one in found]) for name in found[0]}
    note = (
        f"{TRIALS} random architectures of the quickstart a seed, seeds {', '.join(map(str, SEEDS))}. Each was trained "
        f"once, to all of its {STEPS} steps, with a report at every rung; the reports were then replayed through each "
        f"rule, whose decisions depend on nothing else, in {ORDERS} random orders as two workers would bring them. "
        "Defaults where nothing else is said: rungs after 4 and 15 steps, η 4, 40 validation episodes, confidence "
        f"95%. Time: training, validation at rungs (as long as {EPISODES} episodes took) and at the end. Best: the one "
        "of those completed that is most accurate on meta-validation, on 600 meta-test episodes (± the mean 95% "
        "interval); points: its difference to that of no stopping; same: how often it is the same one. Front: the "
        "hypervolume of the completed as a share of that of all. How well a rung ranks the end "
        f"([plot](../docs/rungs.png), {EPISODES} episodes): Kendall's τ with the final meta-validation accuracy is "
        f"{', '.join(f'{tau[str(r)]:.2f} at step {r}' for r in RUNGS)}; that of FLOPs {tau['flops']:.2f}, that of the "
        f"final meta-test accuracy {tau['test']:.2f}."
    )
    header = (
        "objectives", "stopping", "steps", "steps saved", "time saved", "completed", "best", "points", "same", "front",
    )  # fmt: skip
    return Table(header, rows, note)


def draw(curves: Mapping[int, Sequence[dict[str, Any]]]) -> None:
    """Kendall's τ by rung, one line a seed, and what FLOPs alone would give."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    found = {seed: agreements(rows) for seed, rows in curves.items()}
    for seed, tau in found.items():
        axes.plot([*RUNGS, STEPS], [*(tau[str(r)] for r in RUNGS), 1], "o-", ms=3, lw=0.9, label=f"seed {seed}")
    mean = {name: np.mean([tau[name] for tau in found.values()]) for name in found[SEEDS[0]]}
    axes.plot([*RUNGS, STEPS], [*(mean[str(r)] for r in RUNGS), 1], "o-", color="black", lw=2, label="mean")
    axes.axhline(mean["flops"], color="#9aa5b1", ls=":", label="FLOPs alone")
    axes.set(xlabel="meta-training steps", ylabel="Kendall's τ with the accuracy after all 60", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(PICTURE, dpi=110)
