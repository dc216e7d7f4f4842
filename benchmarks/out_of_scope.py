"""Scores that tell texts of no known class apart, on CLINC150: which one is the default, and does ``refuse`` hold?

    python -m benchmarks.out_of_scope CLINC150_FOLDER BANKING77_FOLDER

CLINC150_FOLDER holds ``data_full.json`` and ``domains.json``. BANKING77_FOLDER holds ``train.jsonl``, ``valid.jsonl``
and ``test.jsonl`` of ProtAugment's fold 01: on its meta-train classes the covariance of the Mahalanobis distance is
learned, on its meta-validation classes thresholds and temperatures. No class of CLINC150 is used for either. The model
is the untouched MiniLM. Each text is embedded once, which takes minutes on one core; the rest takes seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoModel

from benchmarks.user_tasks import embed
from nas_meta.evaluation.calibrate import calibrate, calibration_error
from nas_meta.evaluation.calibration import Calibration
from nas_meta.evaluation.full_way import draws
from nas_meta.evaluation.progress import EvaluationSettings
from nas_meta.learners.heads import SHRINKAGE, whitening
from nas_meta.learners.open_set import SCORES, auroc, conformal_threshold, fpr95, largest_cosine, units_of
from nas_meta.learners.protonet import ProtoNet
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import interval95
from nas_meta.outputs.classifier.examples import Preparation
from nas_meta.tasks.episodes import EpisodeShape
from nas_meta.tasks.packaged_models import MINILM, model_path
from nas_meta.tasks.pool import Pool
from nas_meta.tasks.tokenization import load_tokenizer

DRAWS, SHOTS, REFUSE = 10, 5, 0.05


@dataclass(frozen=True)
class Texts:
    """Embedded texts with their classes."""

    texts: list[str]
    labels: np.ndarray
    z: torch.Tensor

    def of(self, names: set[str]) -> np.ndarray:
        """Return the positions of texts of some classes."""
        return np.flatnonzero(np.isin(self.labels, list(names)))


def official(rng: np.random.Generator, domains: dict[str, list[str]]) -> tuple[set[str], set[str]]:
    """All 150 classes are known; the out-of-scope queries are those of the data set."""
    return {name for members in domains.values() for name in members}, {"oos"}


def near(rng: np.random.Generator, domains: dict[str, list[str]]) -> tuple[set[str], set[str]]:
    """Five classes of every domain are out of scope: the domain is known."""
    parts = [rng.permutation(members) for members in domains.values()]
    return {str(n) for p in parts for n in p[5:]}, {str(n) for p in parts for n in p[:5]}


def far(rng: np.random.Generator, domains: dict[str, list[str]]) -> tuple[set[str], set[str]]:
    """Five whole domains are out of scope."""
    names = rng.permutation(list(domains))
    return {c for d in names[5:] for c in domains[d]}, {c for d in names[:5] for c in domains[d]}


def half(rng: np.random.Generator, domains: dict[str, list[str]]) -> tuple[set[str], set[str]]:
    """Half of the classes of a data set of one domain are out of scope."""
    names = rng.permutation([name for members in domains.values() for name in members])
    return {*map(str, names[: len(names) // 2])}, {*map(str, names[len(names) // 2 :])}


CLINC: dict[str, Callable] = {"CLINC150, official queries": official, "CLINC150, near": near, "CLINC150, far": far}
BANKING: dict[str, Callable] = {"BANKING77, near": half}


def compare(
    settings: dict[str, Callable],
    train: Texts,
    test: Texts,
    domains: dict[str, list[str]],
    within: dict[str, torch.Tensor],
) -> None:
    """Print AUROC, FPR95 and the share of texts in scope that ``refuse`` = 0.05 refuses, for every score."""
    for title, divide in settings.items():
        found: dict[str, list[list[float]]] = {}
        right = []
        for draw in range(DRAWS):
            rng = np.random.default_rng([2, draw])
            known, others = divide(rng, domains)
            names = sorted(known)
            rows = np.concatenate([rng.choice(train.of({n}), SHOTS, replace=False) for n in names])
            labels = np.repeat(np.arange(len(names)), SHOTS)
            inside, outside = test.of(known), test.of(others)
            inside = np.setdiff1d(inside, rows) if train is test else inside
            queries = np.concatenate([inside, outside])
            support, query = train.z[rows], test.z[queries]
            inside_z = query[: len(inside)]
            logits = ProtoNet().task_logits(None, support, torch.from_numpy(labels), len(names), inside_z)
            guess = logits.argmax(1).numpy()
            right.append((np.array(names)[guess] == test.labels[inside]).mean())
            cases = {name: (score, support, query) for name, score in SCORES.items()}
            for name, matrix in within.items():
                cases[f"Mahalanobis, {name}"] = (mahalanobis, support @ matrix, query @ matrix)
            vectorizer = TfidfVectorizer(sublinear_tf=True).fit([train.texts[i] for i in rows])
            parts = [[train.texts[i] for i in rows], [test.texts[i] for i in queries]]
            words = [torch.from_numpy(vectorizer.transform(part).toarray()).float() for part in parts]
            cases["TF-IDF, largest cosine"] = (largest_cosine, *words)
            for name, (score, *pair) in cases.items():
                s, q = (part.numpy() for part in pair)
                values = score(s, labels, len(names), q)
                threshold = conformal_threshold(score(s, labels, len(names), None), REFUSE)
                a, b = values[: len(inside)], values[len(inside) :]
                found.setdefault(name, []).append(
                    [auroc(a, b), fpr95(a, b), (a < threshold).mean(), (b < threshold).mean()]
                )
        print(f"\n{title} ({len(names)} classes): in-scope accuracy {percent(right)}")
        print("| score | AUROC | FPR95, % | refused in scope, % | refused out of scope, % |\n" + "| --- " * 5 + "|")
        for name, values in found.items():
            v = np.array(values)
            cells = [f"{v[:, 0].mean():.3f} ± {interval95(v[:, 0]):.3f}"]
            cells += [percent(v[:, i]) for i in (1, 2, 3)]
            print(f"| {name} | " + " | ".join(cells) + " |")


def mahalanobis(support: np.ndarray, labels: np.ndarray, ways: int, query: np.ndarray | None) -> np.ndarray:
    """Return the negative squared distance to the nearest class mean, of embeddings whitened within classes."""
    counts = np.bincount(labels, minlength=ways).astype(np.float32)
    sums = np.eye(ways, dtype=np.float32)[labels].T @ support
    q = support if query is None else query
    squared = cdist(q, sums / counts[:, None], "sqeuclidean")
    if query is None:
        others = (sums[labels] - support) / (counts[labels] - 1)[:, None]
        squared[np.arange(len(q)), labels] = np.square(q - others).sum(1)
    return -squared.min(1)


def percent(shares: Any) -> str:
    """Format the mean of shares with its 95% interval, in percent."""
    return f"{100 * np.mean(shares):.1f} ± {100 * interval95(np.array(shares)):.1f}"


def transfer(encoder: Encoder, valid: Pool, tests: dict[str, Pool]) -> None:
    """Print what thresholds and temperatures of one data set's meta-validation are worth on other classes."""
    print(
        "\n| test | refused in scope, % | AUROC | FPR95, % | calibration error before → after |\n" + "| --- " * 5 + "|"
    )
    for name, test in tests.items():
        for shots in (1, 5):
            tasks = {"meta-validation": valid, "meta-test": test}
            settings, shape = EvaluationSettings(), EpisodeShape(5, shots, 5)
            evaluation: Any = SimpleNamespace(tasks=tasks, shape=shape, settings=settings)
            found = calibrate(evaluation, encoder, ProtoNet())
            m = found.measured
            print(
                f"| {name}, 5-way {shots}-shot | {100 * m['refused']:.1f} | {m['oos_auroc']:.3f} ± "
                f"{m['oos_auroc_ci95']:.3f} | {100 * m['oos_fpr95']:.1f} ± {100 * m['oos_fpr95_ci95']:.1f} | "
                f"{m['ece_before']:.3f} → {m['ece_after']:.3f} |"
            )
    print("temperatures by number of classes:", {w: round(t, 3) for w, t in found.temperatures.items()})
    everything(encoder, found, test)


def everything(encoder: Encoder, found: Calibration, test: Pool) -> None:
    """Print the same for all 150 classes at once, of which each draw has 25 queries a class."""
    with torch.no_grad():
        z = encoder.embed(test, np.arange(len(test)), 64)
    rows = []
    for task in draws(test, SHOTS, seed=3):
        s, y, q = z[task.support.ravel()], torch.from_numpy(task.support_labels), z[task.query.ravel()]
        arrays = s.numpy(), task.support_labels, 150
        units, inside = units_of(*arrays), largest_cosine(*arrays, q.numpy())
        logits, targets = ProtoNet().task_logits(None, s, y, 150, q).double(), torch.from_numpy(task.labels)
        rows.append([
            (inside < found.threshold(units, SHOTS, REFUSE)).mean(),
            (inside < conformal_threshold(units.own, REFUSE)).mean(),
            calibration_error(logits, targets),
            calibration_error(logits / found.temperature(150), targets),
        ])  # fmt: skip
    v = np.array(rows)
    print(
        f"150-way {SHOTS}-shot: refused in scope {percent(v[:, 0])} % with the transferred threshold, "
        f"{percent(v[:, 1])} % with the conformal one; calibration error {v[:, 2].mean():.3f} → {v[:, 3].mean():.3f}"
    )


def read(file: Path) -> list[tuple[str, str]]:
    """Read a file of ProtAugment's splits."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [(row["sentence"], row["label"]) for row in rows]


def main() -> None:
    """Print the tables of the benchmark."""
    clinc, banking = map(Path, sys.argv[1:3])
    data = json.loads((clinc / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((clinc / "domains.json").read_text(encoding="utf-8"))
    encoder = Encoder(AutoModel.from_pretrained(model_path(MINILM))).eval()
    preparation = Preparation("text", load_tokenizer(MINILM), 64)

    def embedded(pairs: list) -> Texts:
        texts, labels = [t for t, _ in pairs], np.array([y for _, y in pairs])
        return Texts(texts, labels, embed(encoder, preparation, texts))

    def pool(pairs: list) -> Pool:
        names, labels = np.unique([name for _, name in pairs], return_inverse=True)
        return preparation.pool([text for text, _ in pairs], labels, names.tolist())

    train, test = embedded(data["train"]), embedded(data["test"] + data["oos_test"])
    learn, held = (embedded(read(banking / f"{part}.jsonl")) for part in ("train", "test"))
    within = {
        f"shrinkage {s or 'of Ledoit and Wolf'}": whitening(learn.z, learn.labels, s).matrix for s in (None, SHRINKAGE)
    }
    compare(CLINC, train, test, domains, within)
    compare(BANKING, held, held, {"banking": sorted(set(held.labels))}, within)
    tests = {"BANKING77": pool(read(banking / "test.jsonl")), "CLINC150": pool(data["test"])}
    transfer(encoder, pool(read(banking / "valid.jsonl")), tests)


if __name__ == "__main__":
    main()
