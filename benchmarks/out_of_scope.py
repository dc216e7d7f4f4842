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

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoModel

from benchmarks.user_tasks import embed
from nas_meta.learners.heads import SHRINKAGE, whitening
from nas_meta.learners.open_set import SCORES, auroc, conformal_threshold, fpr95, largest_cosine, prototype_cosines
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import interval95
from nas_meta.outputs.classifier.examples import Preparation
from nas_meta.tasks.packaged_models import MINILM, model_path
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


SETTINGS: dict[str, Callable] = {"150 classes, official": official, "near": near, "far": far}


def compare(train: Texts, test: Texts, domains: dict[str, list[str]], within: dict[str, torch.Tensor]) -> None:
    """Print AUROC, FPR95 and the share of texts in scope that ``refuse`` = 0.05 refuses, for every score."""
    for title, divide in SETTINGS.items():
        found: dict[str, list[list[float]]] = {}
        right = []
        for draw in range(DRAWS):
            rng = np.random.default_rng([2, draw])
            known, others = divide(rng, domains)
            names = sorted(known)
            rows = np.concatenate([rng.choice(train.of({n}), SHOTS, replace=False) for n in names])
            labels = torch.arange(len(names)).repeat_interleave(SHOTS)
            inside, outside = test.of(known), test.of(others)
            queries = np.concatenate([inside, outside])
            support, query = train.z[rows], test.z[queries]
            guess = prototype_cosines(support, labels, len(names), query[: len(inside)]).argmax(1).numpy()
            right.append((np.array(names)[guess] == test.labels[inside]).mean())
            cases = {name: (score, support, query) for name, score in SCORES.items()}
            for name, matrix in within.items():
                cases[f"Mahalanobis, {name}"] = (mahalanobis, support @ matrix, query @ matrix)
            vectorizer = TfidfVectorizer(sublinear_tf=True).fit([train.texts[i] for i in rows])
            parts = [[train.texts[i] for i in rows], [test.texts[i] for i in queries]]
            words = [torch.from_numpy(vectorizer.transform(part).toarray()).float() for part in parts]
            cases["TF-IDF, largest cosine"] = (largest_cosine, *words)
            for name, (score, s, q) in cases.items():
                values = score(s, labels, len(names), q).numpy()
                threshold = conformal_threshold(score(s, labels, len(names), None).numpy(), REFUSE)
                a, b = values[: len(inside)], values[len(inside) :]
                found.setdefault(name, []).append(
                    [auroc(a, b), fpr95(a, b), (a < threshold).mean(), (b < threshold).mean()]
                )
        print(f"\n{title}: in-scope accuracy {100 * np.mean(right):.1f} ± {100 * interval95(np.array(right)):.1f}")
        print("| score | AUROC | FPR95, % | refused in scope, % | refused out of scope, % |\n" + "| --- " * 5 + "|")
        for name, values in found.items():
            v = np.array(values)
            cells = [f"{v[:, 0].mean():.3f} ± {interval95(v[:, 0]):.3f}"]
            cells += [f"{100 * v[:, i].mean():.1f} ± {100 * interval95(v[:, i]):.1f}" for i in (1, 2, 3)]
            print(f"| {name} | " + " | ".join(cells) + " |")


def mahalanobis(support: torch.Tensor, labels: torch.Tensor, ways: int, query: torch.Tensor | None) -> torch.Tensor:
    """Return the negative squared distance to the nearest class mean, of embeddings whitened within classes."""
    counts = torch.bincount(labels, minlength=ways).float()
    sums = F.one_hot(labels, ways).float().T @ support
    q = support if query is None else query
    squared = torch.cdist(q, sums / counts[:, None]).square()
    if query is None:
        others = (sums[labels] - support) / (counts[labels] - 1)[:, None]
        squared[torch.arange(len(q)), labels] = (q - others).square().sum(1)
    return -squared.amin(1)


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

    train, test = embedded(data["train"]), embedded(data["test"] + data["oos_test"])
    learn = embedded(read(banking / "train.jsonl"))
    within = {
        f"shrinkage {s or 'of Ledoit and Wolf'}": whitening(learn.z, learn.labels, s).matrix for s in (None, SHRINKAGE)
    }
    compare(train, test, domains, within)


if __name__ == "__main__":
    main()
