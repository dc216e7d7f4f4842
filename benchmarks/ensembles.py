"""Ensembles of what a search found: against single models, seeds of one architecture, their soup, and cascades.

    python -m benchmarks.ensembles [icd10|banking77]...

A search trains six sub-networks of MiniLM with at most half of its FLOPs and keeps all; ``nas-meta ensemble`` selects
among them on meta-validation. Everything is then judged on the same 400 meta-test episodes, 5-way 1-shot. The benchmark
is small: 30 texts of at most 25 classes in each of the splits, and ten steps of meta-training. BANKING77 is left out if
it does not lie beside this checkout. Takes about four minutes per data set on one core.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nas_meta
from nas_meta.config.components import make_evaluation
from nas_meta.config.gpu_sharing import on_this_machine
from nas_meta.config.problem import load_problem
from nas_meta.evaluation.calibrate import best_temperature, calibration_error
from nas_meta.evaluation.ensemble import SMALLEST
from nas_meta.evaluation.open_set import EmbeddedSplit, embedded, open_tasks, scores_of
from nas_meta.evaluation.task_logits import query_logits, tasks_of
from nas_meta.evaluation.trial import Evaluation, result_of
from nas_meta.learners.open_set import auroc
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import LatencySettings, interval95
from nas_meta.models.state import deserialize_state
from nas_meta.outputs.ensemble.judging import SIZE, judge
from nas_meta.outputs.ensemble.scoring import score
from nas_meta.outputs.report.ensemble import ensemble_table
from nas_meta.outputs.report.terminal import console
from nas_meta.space.architecture import Architecture
from nas_meta.tasks.source import TaskSource
from nas_meta.tasks.sources.files import FileOptions, JSONLines
from nas_meta.tasks.sources.icd10 import ICD10, ICD10Options

BANKING = Path(__file__).parents[2] / "shared" / "data" / "banking77"
CLASSES, TEXTS = 25, 30
CONFIG: dict[str, Any] = {
    "space": {"name": "bert-subnet", "model": "starter:minilm", "min_layers": 3, "max_layers": 4,
              "heads": [1.0, 0.75], "ffn": [1.0, 0.5]},
    "learner": {"name": "protonet", "distance": "cosine", "steps": 10, "lr": 1e-4, "head": "whitening"},
    "strategy": {"name": "surrogate"},
    "objectives": {"accuracy": "maximize", "flops": {"max": "0.5x"}},
    "evaluation": {"episodes": 300, "test_episodes": 2, "test_best": 0, "keep": 6, "compare": False},
    "latency": {"seconds": 0.5},
    "budget": {"trials": 6},
    "seed": 1,
}  # fmt: skip
EPISODES = 400
SEEDS = (11, 12, 13)


@dataclass(frozen=True)
class Judged:
    """A model, or several that average, on meta-validation and meta-test.

    Attributes:
        valid: ``[Q, N]`` calibrated probabilities on meta-validation.
        test: ``[Q, N]`` calibrated probabilities on meta-test.
        split: Embedded examples of meta-test for open-set episodes; None for cascades.
        mflops: Compute for one text of 32 tokens.
        latency: Milliseconds.
    """

    valid: np.ndarray
    test: np.ndarray
    split: EmbeddedSplit | None
    mflops: float
    latency: float


class Bench:
    """A finished search with the tasks on which everything is judged."""

    def __init__(self, run: nas_meta.Run):
        resolved = on_this_machine(run.config)
        space, tasks, shape = load_problem(resolved)
        self.run, self.space = run, space
        self.evaluation: Evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
        self.evaluation = dataclasses.replace(self.evaluation, limits=())
        self.evaluation.setup()
        counts = {"meta-validation": self.evaluation.settings.episodes, "meta-test": EPISODES}
        self.tasks = {split: tasks_of(self.evaluation, split, count) for split, count in counts.items()}
        self.targets = {s: np.concatenate([t.labels for t in tasks]) for s, tasks in self.tasks.items()}
        self.settings = LatencySettings(**run.config.sections.latency.model_dump(exclude={"models"}))

    def train(self, architecture: Architecture, seed: int) -> bytes:
        """Return the weights of a trial that is not part of the search."""
        return bytes(result_of(self.evaluation.trial(architecture, seed, keep_above=-math.inf)).weights)

    def judged(self, architecture: Architecture, encoder: Encoder) -> Judged:
        """Return one model, calibrated on meta-validation."""
        logits = {s: query_logits(self.evaluation, encoder.eval(), s, tasks) for s, tasks in self.tasks.items()}
        of = {split: torch.from_numpy(found).double() for split, found in logits.items()}
        t = best_temperature(of["meta-validation"], torch.from_numpy(self.targets["meta-validation"]))
        valid, test = ((of[split] / t).softmax(1).numpy() for split in ("meta-validation", "meta-test"))
        return Judged(
            valid, test, embedded(self.evaluation, encoder, "meta-test"), self.evaluation.flops(encoder.model) / 1e6,
            1e3 * self.evaluation.latency(architecture, self.settings).metrics["latency"],
        )  # fmt: skip

    def restored(self, architecture: Architecture, weights: bytes) -> Judged:
        """Return a trained model."""
        return self.judged(architecture, self.evaluation.restored(architecture, weights))

    def soup(self, architecture: Architecture, weights: Sequence[bytes]) -> Judged:
        """Return the model with averaged weights (Wortsman et al. 2022), whose head is fitted anew."""
        encoder = self.evaluation.restored(architecture, weights[0])
        states = [deserialize_state(part) for part in weights]
        mean = {
            name: torch.stack([state[name] for state in states]).mean(0) if tensor.is_floating_point() else tensor
            for name, tensor in states[0].items()
        }
        encoder.load_state_dict(mean)
        self.evaluation.finish(encoder)
        return self.judged(architecture, encoder)

    def aurocs(self, split: EmbeddedSplit) -> np.ndarray:
        """Measure how well queries of other classes are distinguished in each open-set episode of meta-test."""
        shape, seed = self.evaluation.shape, self.evaluation.settings.seed
        parts = (scores_of(split, task) for task in open_tasks(split, shape, seed))
        return np.array([auroc(inside, outside) for _, inside, outside in parts])

    def accuracies(self, probabilities: np.ndarray, split: str = "meta-test") -> np.ndarray:
        """Return the accuracy on each episode."""
        right = probabilities.argmax(1) == self.targets[split]
        return right.reshape(len(self.tasks[split]), -1).mean(1)

    def line(self, name: str, found: Judged, best: Judged) -> str:
        """Return a row of the table."""
        own, reference = (100 * self.accuracies(part.test) for part in (found, best))
        logits = torch.from_numpy(np.log(np.maximum(found.test, SMALLEST)))
        error = calibration_error(logits, torch.from_numpy(self.targets["meta-test"]))
        cells = [name, f"{own.mean():.2f} ± {interval95(own):.2f}"]
        cells.append("" if found is best else f"{(own - reference).mean():+.2f} ± {interval95(own - reference):.2f}")
        cells.append(f"{error:.3f}")
        if found.split is None or best.split is None:
            cells += ["", ""]
        else:
            areas, others = self.aurocs(found.split), self.aurocs(best.split)
            gain = areas - others
            cells.append(f"{areas.mean():.3f} ± {interval95(areas):.3f}")
            cells.append("" if found is best else f"{gain.mean():+.3f} ± {interval95(gain):.3f}")
        return f"| {' | '.join([*cells, f'{found.mflops:.0f}', f'{found.latency:.1f}'])} |"


def together(members: Sequence[Judged], weights: Sequence[float]) -> Judged:
    """Return members that average their probabilities; their embeddings are concatenated, as the classifier does it."""
    shares = np.array(weights) / sum(weights)
    splits = [member.split for member in members if member.split is not None]
    z = EmbeddedSplit(splits[0].pool, torch.cat([split.z for split in splits], 1))
    valid, test = (
        sum(s * getattr(m, part) for s, m in zip(shares, members, strict=True)) for part in ("valid", "test")
    )
    return Judged(valid, test, z, sum(m.mflops for m in members), sum(m.latency for m in members))


def cascade(first: Judged, second: Judged, targets: np.ndarray, shared: bool) -> tuple[Judged, float]:
    """Return a cascade: the first model answers where the margin of its two best classes suffices.

    Args:
        first: The model that always runs.
        second: The model for the other texts.
        targets: Classes on meta-validation, where the margin is the smallest that loses nothing against ``second``.
        shared: Whether the first model is a member of the second, which then need not run again.

    Returns:
        The cascade, and the share of meta-test queries for which the second model runs.
    """
    margins = {part: np.diff(np.sort(getattr(first, part), axis=1)[:, -2:])[:, 0] for part in ("valid", "test")}
    own, other = (model.valid.argmax(1) == targets for model in (first, second))
    limits = np.append(np.quantile(margins["valid"], np.linspace(0, 1, 201)), 1.1)
    limit = next(t for t in limits if np.where(margins["valid"] >= t, own, other).mean() >= other.mean())
    passed = margins["test"] < limit
    share = float(passed.mean())
    test = np.where(passed[:, None], second.test, first.test)
    mflops = first.mflops + share * (second.mflops - shared * first.mflops)
    latency = first.latency + share * (second.latency - shared * first.latency)
    return Judged(first.valid, test, None, mflops, latency), share


def write_part(name: str, folder: Path) -> dict[str, str]:
    """Write a part of a data set as JSON Lines, and return the files of the splits."""
    if name == "icd10":
        source: TaskSource = ICD10(ICD10Options())
    else:
        files = {split: BANKING / f"{split}.jsonl" for split in ("train", "valid", "test")}
        source = JSONLines(FileOptions(**files, text="sentence"))
    found, splits, rng = {}, source.load().splits, np.random.default_rng(0)
    for split, key in (("meta-train", "train"), ("meta-validation", "valid"), ("meta-test", "test")):
        classes = splits[split]
        rows = [
            {"text": str(classes[label][i]), "label": label}
            for label in rng.permutation(sorted(classes))[:CLASSES]
            for i in rng.permutation(len(classes[label]))[:TEXTS]
        ]
        found[key] = str(folder / f"{key}.jsonl")
        Path(found[key]).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return found


def measure(name: str) -> None:
    """Search on a data set and print its table."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = {"source": "jsonl", **write_part(name, Path(folder)), "ways": 5, "shots": 1, "queries": 5}
        run = nas_meta.search({**CONFIG, "tasks": tasks}, Path(folder) / "run", inline=True)
        candidates = score(run)
        chosen = judge(candidates, SIZE, None, run.config.sections.seed)
        console().print(ensemble_table(chosen))
        print(f"\n{name}: {chosen.verdict}\n", flush=True)
        bench = Bench(run)
        of = {trial.id: bench.space.canonical(trial.architecture) for trial in candidates.trials}
        kept = {t.id: bench.restored(of[t.id], run.weights_of(t)) for t in candidates.trials}
        best_id, near_id = chosen.rows[0].trials[0], chosen.rows[2].trials[0]
        best, ensemble = kept[best_id], together([kept[i] for i in chosen.rows[1].trials], chosen.weights)
        rows = {f"best single trial ({best_id})": best, "ensemble of trials": ensemble}
        everything = together(list(kept.values()), [1] * len(kept))
        rows |= {"all six kept trials, equal weights": everything}
        rows |= {f"kept trial nearest in latency ({near_id})": kept[near_id]}
        architecture = of[best_id]
        whole = next(a for n, a in bench.space.comparisons(architecture).items() if n.startswith("the whole"))
        seed = run.trial(best_id).seed
        rows["all of MiniLM trained alike"] = bench.restored(whole, bench.train(whole, seed))
        weights = [bench.train(architecture, seed) for seed in SEEDS]
        seeds = [bench.restored(architecture, part) for part in weights]
        spread = [100 * bench.accuracies(found.test).mean() for found in seeds]
        rows[f"{len(seeds)} seeds of the best architecture: ensemble"] = together(seeds, [1] * len(seeds))
        rows[f"{len(seeds)} seeds of the best architecture: soup"] = bench.soup(architecture, weights)
        fastest = min(kept, key=lambda i: kept[i].mflops)
        targets = bench.targets["meta-validation"]
        rows[f"fastest kept trial ({fastest})"] = kept[fastest]
        for title, first, second, shared in (
            ("cascade: the fastest, then the best", kept[fastest], best, False),
            ("cascade: the best, then the ensemble", best, ensemble, best_id in chosen.rows[1].trials),
        ):
            found, share = cascade(first, second, targets, shared)
            rows[f"{title} for {100 * share:.0f} % of the texts"] = found
        print("| model | accuracy, % | against the best single | calibration error | AUROC | against the best single "
              "| MFLOPs | latency, ms |\n|" + " --- |" * 8)  # fmt: skip
        for title, found in rows.items():
            print(bench.line(title, found, best))
        print(
            f"\n{len(seeds)} seeds alone: {min(spread):.2f} to {max(spread):.2f} %, mean {np.mean(spread):.2f} %\n",
            flush=True,
        )


def main() -> None:
    """Print a table for every data set."""
    names = sys.argv[1:] or ["icd10", *(["banking77"] if BANKING.is_dir() else [])]
    for name in names:
        measure(name)


if __name__ == "__main__":
    main()
