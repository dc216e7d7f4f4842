"""All 150 classes of CLINC150 and texts of none of them, with a sub-network of MiniLM of at most 17 million parameters.

Prototypes of 5 examples per class, in ten draws from the training texts, are judged on all test texts and on the texts
of the data set that belong to no class, with and without the names of the classes. No class of CLINC150 takes part in
a choice or a training: the architecture is the best of a search on BANKING77 (``benchmarks/clinc150.yaml``), which also
has the meta-train classes, and the meta-validation classes on which the head is chosen. Both data sets must lie beside
this checkout. Results are stored in ``benchmarks/clinc150.json``; delete a line there to measure it again.

usage: python -m benchmarks.run clinc150
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results_file
from benchmarks.heads import Cached
from benchmarks.learners import BANKING
from benchmarks.recipe import CLINC, source_of
from benchmarks.table import Table

RESULTS = Path(__file__).with_suffix(".json")
KEPT = {0: (12, 1536), 1: (9, 384), 4: (6, 1152), 5: (12, 768)}  # the best of the search: layers with heads and neurons
SHOTS, SEEDS = 5, (1, 2, 3)
HEADS = ("none", "whitening", "linear")
JUDGED = 8  # meta-validation episodes of 20 classes on which the head is chosen
TFIDF, MINILM, SUBNET = "TF-IDF", "MiniLM", "sub-network"
MPNET = {"distill": {"model": "starter:mpnet", "weight": 1.0}}
BOTH = "BANKING77 and ICD-10-CM"
TRAINED: Mapping[str, Mapping[str, Any]] = {
    f"{SUBNET}, 80 steps": {"steps": 80},
    f"{SUBNET}, 80 steps, distilled from MPNet": {"steps": 80, "training": MPNET},
    f"{SUBNET}, 300 steps": {"steps": 300},
    f"{SUBNET}, 300 steps on {BOTH}, distilled from MiniLM": {"steps": 300, "training": {"distill": 10.0}},
}
UNTRAINED = (TFIDF, MINILM, SUBNET)
PARAMS, ACCURACY, AUROC = 17e6, 0.88, 0.90  # the mark


def source(both: bool, folder: Path) -> dict[str, Any]:
    """Options of the task source.

    Args:
        both: whether meta-train has the meta-train classes of ICD-10-CM, too; meta-validation is always BANKING77's.
        folder: where the file of both is written.
    """
    found = source_of("BANKING77", folder)
    if both:
        from nas_meta.tasks.sources.icd10 import ICD10, ICD10Options

        classes = ICD10(ICD10Options()).load().splits["meta-train"]
        lines = [json.dumps({"sentence": str(text), "label": name}) for name in classes for text in classes[name]]
        text = Path(found["train"]).read_text(encoding="utf-8").strip()
        found["train"] = str(folder / "train.jsonl")
        Path(found["train"]).write_text("\n".join([text, *lines]) + "\n", encoding="utf-8")
    return found


def problem(learner: Mapping[str, Any], both: bool, seed: int) -> Any:
    """The evaluation of sub-networks on BANKING77, set up.

    Args:
        learner: options of the learner beside the recipe's.
        both: as for :func:`source`.
        seed: seed of the trainings and heads.
    """
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve

    with tempfile.TemporaryDirectory() as folder:
        resolved = resolve(
            {
                "space": {
                    "name": "bert-subnet", "heads": [1.0, 0.75, 0.5], "ffn": [1.0, 0.75, 0.5, 0.25],
                    "importance_episodes": 20,
                },
                "tasks": {**source(both, Path(folder)), "ways": 20, "shots": SHOTS, "train_shots": 1},
                "learner": {"name": "protonet", "distance": "cosine", "head": "none", **learner},
                "evaluation": {"episodes": 2},
                "seed": seed,
            }
        )  # fmt: skip
        space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation.setup()
    return evaluation


def sub_network(space: Any) -> Any:
    """The architecture that the search found.

    Args:
        space: a prepared ``bert-subnet``.
    """
    values: dict[str, Any] = {}
    for layer in range(6):
        heads, neurons = KEPT.get(layer, (None, None))
        values |= {f"layer{layer}.keep": layer in KEPT, f"layer{layer}.heads": heads, f"layer{layer}.ffn": neurons}
    return space.canonical({name: value for name, value in values.items() if value is not None})


@cache
def clinc150() -> tuple[Any, np.ndarray, np.ndarray]:
    """The texts of CLINC150, tokenised for MiniLM, with the names of the classes.

    Returns:
        A pool; the indices ``[4500]`` of the test texts, and ``[1000]`` of those of no class, whose label is wrong.
    """
    from nas_meta.outputs.classifier.examples import Preparation
    from nas_meta.tasks import packaged_models
    from nas_meta.tasks.tokenization import load_tokenizer, text_encoder, with_name_rows

    data = json.loads((CLINC / "data_full.json").read_text(encoding="utf-8"))
    texts, given = zip(*data["train"], *data["test"], strict=True)
    names, labels = np.unique(given, return_inverse=True)
    outside = [text for text, _ in data["oos_test"]]
    preparation = Preparation("text", load_tokenizer(packaged_models.MINILM), 64)
    every = np.concatenate([labels, np.zeros(len(outside), np.int64)])
    pool = preparation.pool([*texts, *outside], every, names.tolist())
    pool = with_name_rows(pool, text_encoder(preparation.tokenizer, preparation.max_tokens))
    return pool, np.arange(len(data["train"]), len(texts)), np.arange(len(texts), len(every))


def supports(pool: Any, queries: np.ndarray, others: np.ndarray) -> Iterator[tuple[bool, np.ndarray]]:
    """Ten support sets ``[150, K]`` without names, then the same with names, which have one more column."""
    from nas_meta.evaluation.full_way import draws

    tasks = draws(pool, SHOTS, seed=1, queries=np.concatenate([queries, others]))
    for names in (False, True):
        yield from ((names, task.support if names else task.support[:, :-1]) for task in tasks)


def judged(encoder: Any, learner: Any) -> dict[str, list[list[float]]]:
    """Accuracy and AUROC of every draw.

    Args:
        encoder: an encoder that keeps its embeddings; None for TF-IDF.
        learner: the learner, whose distance is used.

    Returns:
        By ``examples`` and ``names``, the accuracy and the AUROC of each of ten draws.
    """
    import torch
    from sklearn.feature_extraction.text import TfidfVectorizer

    from nas_meta.learners.metric import mapped
    from nas_meta.learners.open_set import auroc, largest_cosine, prototype_cosines

    pool, inside, outside = clinc150()
    found: dict[str, list[list[float]]] = {"examples": [], "names": []}
    for names, support in supports(pool, inside, outside):
        parts, labels = (support.ravel(), inside, outside), np.repeat(np.arange(len(support)), support.shape[1])
        if encoder is None:
            words = TfidfVectorizer(sublinear_tf=True).fit([pool.texts[i] for i in parts[0]])
            z = [words.transform([pool.texts[i] for i in part]).toarray().astype(np.float32) for part in parts]
            guessed = prototype_cosines(z[0], labels, len(support), z[1]).argmax(1)
        else:
            tensors = [mapped(encoder, encoder.embed(pool, part)) for part in parts]
            z = [tensor.numpy() for tensor in tensors]
            with torch.no_grad():
                logits = learner.task_logits(encoder, tensors[0], torch.from_numpy(labels), len(support), tensors[1])
            guessed = logits.argmax(1).numpy()
        scores = [largest_cosine(z[0], labels, len(support), part) for part in z[1:]]
        right = float((guessed == pool.labels[inside]).mean())
        found["names" if names else "examples"].append([right, float(auroc(*scores))])
    return found


def measure_cell(name: str, seed: int) -> dict[str, Any]:
    """Train a model, if its name says so, and judge it with every head.

    Args:
        name: one of ``UNTRAINED`` or ``TRAINED``.
        seed: seed of training and heads.

    Returns:
        ``params``, the head that was chosen on BANKING77, and for every head what :func:`judged` returns.
    """
    from nas_meta.evaluation.trial import result_of

    if name == TFIDF:
        return {"params": None, "chosen": "none", "none": judged(None, None)}
    evaluation = problem({"steps": 0, **TRAINED.get(name, {})}, BOTH in name, seed)
    space, learner = evaluation.space, evaluation.learner
    if name == MINILM:
        architecture = space.canonical({choice: max(values.values) for choice, values in space.table.items()})
    else:
        architecture = sub_network(space)
    trial = result_of(evaluation.trial(architecture, seed, keep_above=0.0))
    encoder = Cached(evaluation.restored(architecture, bytes(trial.weights)))
    temperature = encoder.learned.temperature
    found: dict[str, Any] = {"params": int(trial.metrics["params"])}
    for head in ("auto", *HEADS):
        fitted = type(learner)(learner.options.model_copy(update={"head": head}))
        encoder.learned = fitted.learned(encoder, evaluation.shape.ways)
        encoder.learned.temperature = temperature
        fitted.finish(encoder, evaluation.tasks, evaluation.shape, seed, JUDGED)
        if head == "auto":
            found["chosen"] = encoder.learned.head.name
        else:
            found[head] = judged(encoder, fitted)
    return found


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Accuracy and AUROC, means over draws and seeds, one row per model with and without names."""
    from nas_meta.core.wording import counted

    rows = []
    for model in (*UNTRAINED, *TRAINED):
        runs = [results[key] for seed in SEEDS if (key := f"{model} {seed}") in results]
        for kind, support in (("examples", f"{SHOTS} examples"), ("names", f"{SHOTS} examples, name")) if runs else ():
            params, heads = runs[0]["params"], sorted({run["chosen"] for run in runs})
            plain, plain_reached = cells([run["none"][kind] for run in runs])
            fitted, reached = cells([run[run["chosen"]][kind] for run in runs])
            reached = params is not None and params <= PARAMS and (reached or plain_reached)
            same = heads == ["none"]
            rows.append([
                model + (f" ({counted(len(runs), 'seed')})" if model in TRAINED else ""),
                f"{params / 1e6:.1f} M" if params else "", support, *plain,
                "" if same else ", ".join(heads), *(["", ""] if same else fitted), "reached" if reached else "missed",
            ])  # fmt: skip
    return Table(
        ("model", "parameters", "support of a class", "accuracy, %", "AUROC",
         "head", "accuracy with it, %", "AUROC with it", "mark"),
        rows,
        "All 150 classes at once, 4,500 test texts and 1,000 texts of no class. Means over ten draws of the support "
        "set, which are the same for all rows, and over seeds, with 95% intervals over draws. The head is the one that "
        "`auto` chooses on BANKING77. The mark: at most 17 million parameters, an accuracy of at least 88 % and an "
        "AUROC of at least 0.90.",
    )  # fmt: skip


def cells(runs: Sequence[Sequence[Sequence[float]]]) -> tuple[list[str], bool]:
    """Text cells of one model, and whether it reaches the accuracy and the AUROC of the mark.

    Args:
        runs: for each seed what :func:`judged` returned, with or without names.
    """
    from nas_meta.models.profiling import interval95

    draws = np.mean(runs, 0)  # [10, 2]
    accuracy, area = draws.mean(0)
    shown = [
        f"{100 * accuracy:.1f} ± {interval95(100 * draws[:, 0]):.1f}",
        f"{area:.3f} ± {interval95(draws[:, 1]):.3f}",
    ]
    return shown, bool(accuracy >= ACCURACY and area >= AUROC)


def measure() -> Table:
    """Measures what the results file lacks and returns the table; needs both data sets."""
    if not (BANKING.is_dir() and CLINC.is_dir()):
        return table(results_file.read(RESULTS))
    results_file.measure_missing(RESULTS, UNTRAINED, SEEDS[:1], measure_cell)
    return table(results_file.measure_missing(RESULTS, TRAINED, SEEDS, measure_cell))
