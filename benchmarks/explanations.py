"""Deletion tests of explanations: do the words and the support examples that they name matter more than others?

    python -m benchmarks.explanations BANKING77_FOLDER

BANKING77_FOLDER holds ``test.jsonl`` of ProtAugment's fold 01. The model is the untouched MiniLM: 50 tasks of five
classes with five examples each, and four texts a task, for every learner with a closed form. Takes a few minutes on
one core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from transformers import AutoModel

from benchmarks.out_of_scope import read
from nas_meta.learners.base import Learner
from nas_meta.learners.matching import Matching
from nas_meta.learners.protonet import ProtoNet
from nas_meta.learners.ridge import Ridge
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import interval95
from nas_meta.outputs.classifier.adaptation import ModelParts
from nas_meta.outputs.classifier.classifier import FewShotClassifier, Fitted
from nas_meta.outputs.classifier.examples import Preparation
from nas_meta.outputs.explain.prediction import Explanation
from nas_meta.tasks.packaged_models import MINILM, model_path
from nas_meta.tasks.tokenization import load_tokenizer

TASKS, WAYS, SHOTS, QUERIES = 50, 5, 5, 4
LEARNERS: dict[str, type[Learner]] = {"protonet": ProtoNet, "ridge": Ridge, "matching": Matching}


def word_falls(found: Explanation, rng: np.random.Generator) -> list[tuple[float, bool]]:
    """Return the fall of the probability, and whether the class changes, without the first and without a random word.

    The random word is another one than the first.
    """
    first, *others = found.words
    other = others[int(rng.integers(len(others)))]
    return [(word.effect, word.label_without != found.label) for word in (first, other)]


def example_falls(
    classifier: FewShotClassifier, found: Explanation, rng: np.random.Generator
) -> list[tuple[float, bool]]:
    """Return the same without the support example of the largest share, and without a random other one of its class."""
    own = [row for row in found.support if row.label == found.label]
    first = max(own, key=lambda row: row.share or 0.0)
    other = [row for row in own if row is not first][int(rng.integers(len(own) - 1))]
    state, falls = classifier.fitted, []
    column = state.names.index(found.label)
    for row in (first, other):
        kept = [i for i, text in enumerate(state.examples) if text != row.text]
        examples = [state.examples[i] for i in kept]
        fewer = Fitted(state.names, state.labels[kept], examples, state.z[kept])  # without embedding anything again
        labels, probabilities = FewShotClassifier(classifier.parts, fitted=fewer).classify([found.text])
        falls.append((found.probability - float(probabilities[0, column]), labels[0] != found.label))
    return falls


def measure(classifier: FewShotClassifier, by_class: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """Return ``[texts, first or random, fall or change]`` for words and for support examples."""
    words, examples = [], []
    for task in range(TASKS):
        rng = np.random.default_rng([0, task])
        texts, names, queries = [], [], []
        for name in rng.choice(sorted(by_class), WAYS, replace=False):
            drawn = [by_class[name][i] for i in rng.permutation(len(by_class[name]))[: SHOTS + 1]]
            texts += drawn[:SHOTS]
            names += [str(name)] * SHOTS
            queries.append(drawn[SHOTS])
        classifier.fit(texts, names)
        for query in queries[:QUERIES]:
            found = classifier.explain(query)
            if len(found.words) > 1:
                words.append(word_falls(found, rng))
                examples.append(example_falls(classifier, found, rng))
    return {"word": np.array(words, dtype=float), "support example": np.array(examples, dtype=float)}


def main() -> None:
    """Print the table."""
    by_class: dict[str, list[str]] = {}
    for text, label in read(Path(sys.argv[1]) / "test.jsonl"):
        if text not in by_class.setdefault(label, []):
            by_class[label].append(text)
    encoder = Encoder(AutoModel.from_pretrained(model_path(MINILM))).eval()
    preparation = Preparation("text", load_tokenizer(MINILM), 64)
    print("| learner | without | probability falls by, points | random one | difference | class changes | random one |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, kind in LEARNERS.items():
        learner = kind()
        encoder.learned = learner.learned(encoder, WAYS)
        classifier = FewShotClassifier(ModelParts(encoder, learner, preparation, WAYS, name))
        for what, found in measure(classifier, by_class).items():
            falls, changes = 100 * found[:, :, 0], 100 * found[:, :, 1].mean(0)
            gap = falls[:, 0] - falls[:, 1]
            print(
                f"| {name} | the first {what} | {falls[:, 0].mean():.1f} | {falls[:, 1].mean():.1f} | "
                f"{gap.mean():+.1f} ± {interval95(gap):.1f} | {changes[0]:.1f} % | {changes[1]:.1f} % |",
                flush=True,
            )
    print(f"{len(found)} texts")


if __name__ == "__main__":
    main()
