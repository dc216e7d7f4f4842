"""The untouched MiniLM on tasks as users have them: what unlabelled texts gain, and accuracy over all classes at once.

usage: BANKING77=FOLDER CLINC150=FOLDER python -m benchmarks.run user_tasks

The folders hold BANKING77 (``test.jsonl`` of ProtAugment's fold 01, ``polyai_train.csv``, ``polyai_test.csv``) and
CLINC150 (``data_full.json``). Each distinct text is embedded once; the rest takes seconds.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModel

from benchmarks.table import Table
from nas_meta.evaluation.full_way import accuracies, draws
from nas_meta.evaluation.protocols import task_words
from nas_meta.learners.protonet import ProtoNet
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import interval95
from nas_meta.outputs.classifier.examples import Preparation
from nas_meta.tasks.packaged_models import MINILM, model_path
from nas_meta.tasks.tokenization import load_tokenizer, text_encoder, with_name_rows

EPISODES = 600
VARIABLES = ("BANKING77", "CLINC150")  # environment variables that name folders


def embed(encoder: Encoder, preparation: Preparation, texts: list[str]) -> torch.Tensor:
    """Return the embeddings ``[texts, D]``, of unit norm."""
    pool = preparation.pool(texts, np.zeros(len(texts), np.int64), ["unknown"])
    with torch.no_grad():
        return F.normalize(encoder.embed(pool, np.arange(len(texts)), 64), dim=-1)


def transductive(z: torch.Tensor, labels: np.ndarray, balanced: bool) -> list[str]:
    """Compare 600 paired episodes: 15 queries a class, or class shares from a Dirichlet distribution with α = 2."""
    learner, rows = ProtoNet(), []
    names = np.unique(labels)
    for i in range(EPISODES):
        rng = np.random.default_rng([0, i])
        support, queries, targets = [], [], []
        shares = np.full(5, 0.2) if balanced else rng.dirichlet([2.0] * 5)
        counts = np.full(5, 15) if balanced else np.bincount(rng.choice(5, 75, p=shares), minlength=5)
        for k, name in enumerate(rng.choice(names, 5, replace=False)):
            members = rng.permutation(np.flatnonzero(labels == name))
            support.append(members[0])
            queries.extend(members[1 : 1 + counts[k]])
            targets.extend([k] * len(members[1 : 1 + counts[k]]))
        s, q, y = z[support], z[queries], np.array(targets)
        plain = learner.task_logits(None, s, torch.arange(5), 5, q).argmax(1).numpy()
        prototypes = learner.refined(None, s, torch.arange(5), 5, q)
        refined = learner.prototype_logits(None, prototypes, q).argmax(1).numpy()
        rows.append([(plain == y).mean(), (refined == y).mean()])
    both = 100 * np.array(rows)
    parts = (both[:, 0], both[:, 1], both[:, 1] - both[:, 0])
    return [f"{values.mean():.1f} ± {interval95(values):.1f}" for values in parts]


def full_way(
    encoder: Encoder, preparation: Preparation, train: list, test: list, shots: int, class_names: bool
) -> str:  # fmt: skip
    """Return the accuracy over all classes at once, for ten draws of examples from the training texts.

    Args:
        encoder: the model.
        preparation: how it tokenises texts.
        train: texts with their classes, of which support examples are drawn.
        test: texts with their classes, which are the queries.
        shots: examples per class.
        class_names: whether the name of each class is one more example.
    """
    texts, given = zip(*train, *test, strict=True)
    names, labels = np.unique(given, return_inverse=True)
    pool = preparation.pool(list(texts), labels, names.tolist())
    queries = np.arange(len(train), len(pool))
    if class_names:
        pool = with_name_rows(pool, text_encoder(preparation.tokenizer, preparation.max_tokens))
    tasks = draws(pool, shots=shots, seed=1, queries=queries)
    found = 100 * accuracies(lambda part: ProtoNet().accuracies(encoder, pool, part), tasks)
    return f"{found.mean():.1f} ± {interval95(found):.1f}"


def read_csv(path: Path) -> list[tuple[str, str]]:
    """Read the texts and classes of a file of BANKING77."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def measure() -> Table:
    """Return what unlabelled texts gain, and the accuracy over all classes at once."""
    banking, clinc = (Path(os.environ[name]) for name in VARIABLES)
    encoder = Encoder(AutoModel.from_pretrained(model_path(MINILM))).eval()
    preparation = Preparation("text", load_tokenizer(MINILM), 64)
    lines = [json.loads(line) for line in (banking / "test.jsonl").read_text().splitlines()]
    unique = {row["sentence"].strip(): row["label"] for row in lines}
    z, labels = embed(encoder, preparation, list(unique)), np.array(list(unique.values()))
    data = json.loads((clinc / "data_full.json").read_text())
    sets = {
        "BANKING77, all 77 classes": [read_csv(banking / f"polyai_{part}.csv") for part in ("train", "test")],
        "CLINC150, all 150 classes": [data[part] for part in ("train", "test")],
    }
    cells = [(name, k, named) for name in sets for k in (1, 5) for named in (False, True)]
    rows = [
        ["BANKING77, 5-way 1-shot, 15 queries per class", *transductive(z, labels, balanced=True)],
        ["the same, class shares from a Dirichlet distribution, α = 2", *transductive(z, labels, balanced=False)],
        *(
            [f"{name}, {task_words(None, k, named)}", full_way(encoder, preparation, *sets[name], k, named), "", ""]
            for name, k, named in cells
        ),
    ]
    return Table(("queries", "inductive", "**transductive**", "gain"), rows)
