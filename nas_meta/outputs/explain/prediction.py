"""Why a text gets its class: the support examples that decide it, and the words that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.errors import DataError
from nas_meta.learners.open_set import unit
from nas_meta.outputs.explain.shares import Contributions, contributions
from nas_meta.tasks.examples import TEXT, Example

if TYPE_CHECKING:
    from nas_meta.outputs.classifier.classifier import FewShotClassifier, Fitted
    from nas_meta.outputs.classifier.parts import Parts

MOST_WORDS = 200  # of a text that are left out, one at a time
TOLERANCE = 1e-3  # largest difference to the learner's own score, relative to its size


@dataclass(frozen=True)
class SupportShare:
    """A support example and its part in a prediction.

    Attributes:
        label: Its class.
        text: The example; None for an image, and where a saved classifier kept only embeddings.
        similarity: Cosine of its embedding and that of the text.
        contribution: What it adds to the score of the predicted class; None if there is no closed form.
        share: Its contribution as a share of the sum of all absolute contributions; negative if it speaks against the
            class. None if there is no closed form.
    """

    label: Any
    text: str | None
    similarity: float
    contribution: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class WordEffect:
    """A word and its effect on a prediction.

    Attributes:
        word: The word.
        position: Its place in the text, from 0.
        effect: By how much the probability of the predicted class falls without it; negative if it rises.
        label_without: The class that is predicted without it.
    """

    word: str
    position: int
    effect: float
    label_without: Any


@dataclass(frozen=True)
class Explanation:
    """Why a text gets its class.

    Attributes:
        text: The text; None for an image.
        label: The most probable class.
        probability: Its probability.
        refused: Whether :meth:`~nas_meta.outputs.classifier.classifier.FewShotClassifier.predict` refuses to answer.
        score: The sum of contributions and constant: ``logit`` or ``probability``; empty without contributions.
        value: The score of the predicted class; None without contributions.
        constant: What no example contributes; None without contributions.
        formula: The contribution of an example, in words.
        support: The support examples, the largest share first; without a closed form, the most similar first.
        words: The words, the largest effect first.
        note: What the explanation lacks, and why; empty if it is complete.
    """

    text: str | None
    label: Any
    probability: float
    refused: bool
    score: str
    value: float | None
    constant: float | None
    formula: str
    support: Sequence[SupportShare]
    words: Sequence[WordEffect]
    note: str

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as plain data."""
        return asdict(self)


def explain_prediction(classifier: FewShotClassifier, state: Fitted, text: Any) -> Explanation:
    """Explain a prediction.

    Args:
        classifier: A fitted classifier.
        state: Its support set.
        text: The example.

    Returns:
        The explanation.

    Raises:
        DataError: The example cannot be used.
    """
    parts, notes = classifier.parts, list[str]()
    example = _single(parts, text)
    names, probabilities = classifier.classify([example])
    target = int(probabilities[0].argmax())
    label = state.names[target]
    support, found = list[SupportShare](), None
    if state.z is None:
        notes.append(f"the learner '{parts.name}' adapts the model itself, so support examples have no shares")
    else:
        query = parts.embed([example], classifier.batch_size, None)[0]
        found = _closed_form(parts, state, query, target)
        if found is None:
            why = "refines its classes with unlabelled texts" if state.unlabelled is not None else "has no closed form"
            notes.append(f"the learner '{parts.name}' {why}, so support examples are listed by similarity alone")
        support = _support(state, query, found)
    words = list[WordEffect]()
    if isinstance(example, str):
        words = word_effects(classifier, example, label, float(probabilities[0, target]))
        if len(example.split()) > MOST_WORDS:
            notes.append(f"only the first {MOST_WORDS} words were left out in turn")
    return Explanation(
        example if isinstance(example, str) else None, label, float(probabilities[0, target]), names[0] is None,
        found.score if found else "", found.total if found else None, found.constant if found else None,
        found.formula if found else "", support, words, "; ".join(notes),
    )  # fmt: skip


def word_effects(classifier: FewShotClassifier, text: str, label: Any, probability: float) -> list[WordEffect]:
    """Leave out one word at a time and measure how the probability of a class changes.

    It needs predictions alone, so it works with every model and every learner.

    Args:
        classifier: A fitted classifier of texts.
        text: The text.
        label: The class.
        probability: Its probability with all words.

    Returns:
        The words, the largest effect first; none for a text of one word.
    """
    words = text.split()
    if len(words) < 2:
        return []
    tried = min(len(words), MOST_WORDS)
    _, probabilities = classifier.classify([" ".join(words[:i] + words[i + 1 :]) for i in range(tried)])
    names = classifier.classes_.tolist()
    column = probabilities[:, names.index(label)]
    effects = [
        WordEffect(words[i], i, float(probability - column[i]), names[int(probabilities[i].argmax())])
        for i in range(tried)
    ]
    return sorted(effects, key=lambda w: -w.effect)


def _single(parts: Parts, text: Any) -> Example:
    if isinstance(text, (list, np.ndarray)) and parts.preparation.modality == TEXT:
        raise DataError(f"explain() takes one text, not {type(text).__name__}; expected a call for each text")
    return parts.preparation.checked([text], "texts")[0]


def _closed_form(parts: Parts, state: Fitted, query: np.ndarray, target: int) -> Contributions | None:
    """Return the contributions if the learner has a closed form that gives its own score."""
    comparison = parts.comparison
    if comparison is None or state.unlabelled is not None or state.z is None:
        return None
    ways = len(state.names)
    found = contributions(comparison, state.z, state.labels, ways, query, target)
    own = parts.logits(state.z, state.labels, ways, query[None], None)[0].astype(np.float64)
    expected = float(np.exp(own - own.max())[target] / np.exp(own - own.max()).sum())
    if found.score == "logit":
        expected = float(own[target])
    return found if abs(found.total - expected) <= TOLERANCE * max(1.0, abs(expected)) else None


def _support(state: Fitted, query: np.ndarray, found: Contributions | None) -> list[SupportShare]:
    """Return the support examples in the order of their importance."""
    assert state.z is not None  # of learners that classify embeddings
    similar = unit(state.z.astype(np.float64)) @ unit(query.astype(np.float64))
    order = np.argsort(-(similar if found is None else np.abs(found.shares)), kind="stable")
    rows = []
    for i in order.tolist():
        given = state.examples[i] if len(state.examples) == len(state.labels) else None
        rows.append(SupportShare(
            state.names[int(state.labels[i])], given if isinstance(given, str) else None, float(similar[i]),
            float(found.of[i]) if found else None, float(found.shares[i]) if found else None,
        ))  # fmt: skip
    return rows
