"""Early stopping: steps that each rule saves, accuracy that it finds, and how well a rung predicts the final ranking.

A stopping rule is a function of the reports of trials at rungs. One set of trials, trained to the end with a report at
every rung, therefore shows what each rule would have done. It is trained once, stored in ``benchmarks/stopping.json``
and replayed through every rule.

usage: python -m benchmarks.run stopping
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
from nas_meta.core import plugins
from nas_meta.core.objectives import Objective, hypervolume, signed_values
from nas_meta.strategy.stopping.rule import RungReport

CONFIG = Path(__file__).with_name("three_layers.yaml")
CURVES = Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).parents[1] / "docs" / "rungs.png"
SEEDS, TRIALS, STEPS, QUERIES = (1, 2, 3), 24, 60, 25
WORKERS, ORDERS = 2, 20  # simulated workers, and random orders of the trials of a seed
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
    """Trains the first random architectures of a seed to the end; those in the results file are not trained again.

    Returns:
        One row per trial: its architecture, size, final metrics and meta-test accuracy, and for every rung the number
        of correctly classified query examples in each validation episode.
    """
    import nas_meta
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import read_config

    rows = read_results()
    resolved = read_config(CONFIG, [f"seed={seed}", "strategy.name=random", "evaluation.interim_every=0"])
    space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation = evaluation.with_rungs(RUNGS, EPISODES)
    evaluation.setup()
    context = nas_meta.SearchContext(space, resolved.sections.optimised, TRIALS, 1, seed)
    strategy = resolved.plugin("strategy")(context, resolved.options["strategy"])
    trials = rows.setdefault(str(seed), [])
    for number in range(TRIALS):
        architecture = strategy.ask()
        if number >= len(trials):
            trials.append(run_trial(evaluation, architecture, seed))
            CURVES.write_text(json.dumps(rows), encoding="utf-8")
        metrics = trials[number]["metrics"]
        values = signed_values(metrics, resolved.sections.optimised)
        strategy.tell(nas_meta.Outcome(architecture, "completed", metrics, values[0], values))
    strategy.close()
    return trials


def run_trial(evaluation: Any, architecture: Any, seed: int) -> dict[str, Any]:
    """Trains an architecture to the end, records its reports and meta-tests it; returns a row of :func:`trained`."""
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


def read_results() -> dict[str, list[dict[str, Any]]]:
    """Stored trials by seed; empty if the file does not exist."""
    return json.loads(CURVES.read_text(encoding="utf-8")) if CURVES.is_file() else {}


@dataclass(frozen=True)
class Replay:
    """Course of a search with a stopping rule.

    Attributes:
        steps: meta-training steps of all trials.
        seconds: seconds of training and validation of all trials.
        completed: rows of the trials that were not stopped.
    """

    steps: int
    seconds: float
    completed: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any]:
        """The completed trial with the highest meta-validation accuracy."""
        return max(self.completed, key=lambda row: row["metrics"]["accuracy"])


def replay(rows: Sequence[dict[str, Any]], section: dict[str, Any], objectives: Sequence[Objective]) -> Replay:
    """Replays trained trials through a stopping rule.

    This is a discrete-event simulation of ``WORKERS`` workers of equal speed, with steps as the unit of time. A heap
    holds one entry for each running trial; the entry with the earliest time reports next. A worker whose trial ends
    takes the next waiting trial.

    Example: with two workers and rungs after 4 and 15 steps, trials 0 and 1 report at time 4. If trial 0 continues, it
    reports again at time 15; if trial 1 is stopped, trial 2 starts in its place and reports at time 8.

    Args:
        rows: trained trials in the order in which they start.
        section: the ``stopping`` section of a config.
        objectives: objectives of the search.
    """
    plugin = plugins.load("stopping", section["name"])
    options = plugin.Options(**{k: v for k, v in section.items() if k != "name"}).resolved(STEPS, episodes=40)
    rule, ends = plugin(options, objectives), (*options.rungs, STEPS)
    waiting = iter(range(len(rows)))
    # Entries: time of the next report in steps, index of the trial, number of rungs that it has passed.
    events = [(ends[0], trial, 0) for trial in islice(waiting, WORKERS)]
    steps, seconds, completed = 0, 0.0, []
    while events:
        now, trial, passed = heapq.heappop(events)
        row, step = rows[trial], ends[passed]
        if step < STEPS and rule.decide(report(trial, row, step, options.episodes, objectives)):
            heapq.heappush(events, (now + ends[passed + 1] - step, trial, passed + 1))
            continue
        steps += step
        seconds += cost(row, step, options.rungs)
        if step == STEPS:
            completed.append(row)
        for following in islice(waiting, 1):
            heapq.heappush(events, (now + ends[0], following, 0))
    return Replay(steps, seconds, completed)


def report(trial: int, row: dict[str, Any], step: int, episodes: int, objectives: Sequence[Objective]) -> RungReport:
    """Report of a trial at a rung, as in a search."""
    scores = rung_scores(row, step, episodes)
    return RungReport(trial, step, signed_values({**row["metrics"], "accuracy": scores.mean()}, objectives), scores)


def rung_scores(row: dict[str, Any], step: int, episodes: int) -> np.ndarray:
    """``[episodes]`` accuracy of a trial at a rung on each of the first validation episodes."""
    return np.array(row["rungs"][str(step)]["right"][:episodes]) / QUERIES


def cost(row: dict[str, Any], steps: int, rungs: Sequence[int]) -> float:
    """Seconds of a trial that ends after some steps.

    Args:
        row: the trained trial.
        steps: steps after which it ends.
        rungs: rungs of the stopping rule, at which it is validated.

    Returns:
        Seconds of training in proportion to the steps, of validation at the rungs, and after the last step of the final
        validation.
    """
    # The recorded training time includes validation at all rungs, more than the rule may have.
    at_all_rungs = sum(r["seconds"] for r in row["rungs"].values())
    training = (row["metrics"]["train_seconds"] - at_all_rungs) * steps / STEPS
    at_rungs = sum(row["rungs"][str(r)]["seconds"] for r in rungs if r <= steps)
    return training + at_rungs + (row["metrics"]["evaluate_seconds"] if steps == STEPS else 0.0)


def agreement(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's τ-b."""
    from scipy.stats import kendalltau

    return float(kendalltau(one, other).statistic)


def agreements(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Kendall's τ of the final meta-validation accuracy with the accuracy at every rung, FLOPs and meta-test."""
    final = [row["metrics"]["accuracy"] for row in rows]
    return {
        **{str(r): agreement([rung_scores(row, r, EPISODES).mean() for row in rows], final) for r in RUNGS},
        "flops": agreement([row["metrics"]["flops"] for row in rows], final),
        "test": agreement([row["test"]["test_accuracy"] for row in rows], final),
    }


def scaled_hypervolume(rows: Sequence[dict[str, Any]], every: Sequence[dict[str, Any]]) -> float:
    """Hypervolume of accuracy and FLOPs.

    Args:
        rows: trials whose hypervolume is computed.
        every: all trials of the search; both objectives are scaled to their range.
    """
    values = np.array([signed_values(row["metrics"], [ACCURACY, FLOPS]) for row in every])
    points = np.array([signed_values(row["metrics"], [ACCURACY, FLOPS]) for row in rows])
    low, high = values.min(0), values.max(0)
    # The reference point lies slightly below the worst values, so that the ends of the front count.
    return hypervolume((points - low) / (high - low), np.full(2, -0.1))


def orders(curves: Mapping[int, Sequence[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """The trials of every seed in several random orders, which averages out the luck of a good first trial."""
    rng = np.random.default_rng(0)
    return [[rows[i] for i in rng.permutation(len(rows))] for rows in curves.values() for _ in range(ORDERS)]


def compare(runs: Sequence[Replay], unstopped: Sequence[Replay]) -> list[str]:
    """Compares a rule with the same trials without stopping.

    Args:
        runs: replays with the rule.
        unstopped: replays of the same trials without a rule.

    Returns:
        Table cells: what the rule saved and found.
    """
    pairs = list(zip(runs, unstopped, strict=True))
    tests = [(r.best["test"], e.best["test"]) for r, e in pairs]
    best, width = (100 * np.mean([one[key] for one, _ in tests]) for key in ("test_accuracy", "test_accuracy_ci95"))
    gains = [100 * (one["test_accuracy"] - other["test_accuracy"]) for one, other in tests]
    fronts = [
        scaled_hypervolume(r.completed, e.completed) / scaled_hypervolume(e.completed, e.completed) for r, e in pairs
    ]
    return [
        f"{np.mean([r.steps for r in runs]):.0f}",
        f"{1 - np.mean([r.steps / e.steps for r, e in pairs]):.0%}",
        f"{1 - np.mean([r.seconds / e.seconds for r, e in pairs]):.0%}",
        f"{np.mean([len(r.completed) for r in runs]):.1f}",
        f"{best:.1f} ± {width:.1f} %",
        f"{np.mean(gains):+.2f}",
        f"{np.mean([r.best is e.best for r, e in pairs]):.0%}",
        f"{np.mean(fronts):.3f}",
    ]


def measure() -> Table:
    """Steps and time saved and accuracy found, one row per rule and set of objectives; draws ``docs/rungs.png``."""
    curves = {seed: trained(seed) for seed in SEEDS}
    draw(curves)
    rows, shuffled = [], orders(curves)
    for label, objectives in (("accuracy", [ACCURACY]), ("accuracy, FLOPs", [ACCURACY, FLOPS])):
        runs = {
            name: [replay(trials, section, objectives) for trials in shuffled] for name, section in STOPPING.items()
        }
        rows += [[label, name, *compare(replays, runs["none"])] for name, replays in runs.items()]
    taus = [agreements(trials) for trials in curves.values()]
    tau = {name: np.mean([of_seed[name] for of_seed in taus]) for name in taus[0]}
    note = (
        f"{TRIALS} random architectures of three_layers.yaml for each of the seeds {', '.join(map(str, SEEDS))}. Each "
        f"was trained once, for all of its {STEPS} steps, with a report at every rung. The reports were then replayed "
        f"through each rule, whose decisions depend on nothing else, in {ORDERS} random orders, as two workers would "
        "deliver them. Unless the row states otherwise, rungs are after 4 and 15 steps, η is 4, and rules use 40 "
        "validation episodes and a confidence of 95%. Time: training, validation at the rungs (for as long as "
        f"{EPISODES} episodes took) and final validation. Best: accuracy on 600 meta-test episodes (± the mean 95% "
        "interval) of the completed trial that is most accurate on meta-validation. Points: its difference from the "
        "best without stopping. Same: how often both are the same architecture. Front: hypervolume of the completed "
        "trials as a share of that of all trials. How well a rung predicts the final ranking "
        f"([plot](../docs/rungs.png), {EPISODES} episodes): Kendall's τ with the final meta-validation accuracy is "
        f"{', '.join(f'{tau[str(r)]:.2f} at step {r}' for r in RUNGS)}; it is {tau['flops']:.2f} for FLOPs and "
        f"{tau['test']:.2f} for the final meta-test accuracy."
    )
    header = (
        "objectives", "stopping", "steps", "steps saved", "time saved", "completed", "best", "points", "same", "front",
    )  # fmt: skip
    return Table(header, rows, note)


def draw(curves: Mapping[int, Sequence[dict[str, Any]]]) -> None:
    """Draws ``docs/rungs.png``: Kendall's τ by rung, one line per seed, and that of FLOPs alone."""
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
