"""The few-shot classifier, with the interface of scikit-learn's classifiers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.core.wording import counted
from nas_meta.errors import ConfigError, DataError, nearest, one_line
from nas_meta.outputs.classifier.labels import Label, label_array, plain_labels
from nas_meta.outputs.classifier.named import check_class_names, name_examples
from nas_meta.outputs.classifier.parts import Parts, Progress
from nas_meta.outputs.classifier.refusal import check_embeds, check_refuse, scores, threshold
from nas_meta.outputs.classifier.scikit_learn import Estimator
from nas_meta.tasks.examples import Example, content_key

if TYPE_CHECKING:
    from nas_meta.outputs.explain.prediction import Explanation

PARAMETERS = ("batch_size", "refuse", "class_names")
SHOWN = 5  # classes in a prompt


@dataclass(frozen=True)
class Fitted:
    """What a classifier keeps of its support set, in an order that does not depend on the order of the examples.

    Attributes:
        names: The classes, sorted.
        labels: ``[S]``, index of each support example's class.
        examples: The support examples; empty for a saved classifier whose learner needs only their embeddings.
        z: ``[S, D]``, their embeddings; None if the learner needs the examples.
        unlabelled: ``[U, D]``, embeddings that refine the classes; None without any.
    """

    names: list[Label]
    labels: np.ndarray
    examples: Sequence[Example] = ()
    z: np.ndarray | None = None
    unlabelled: np.ndarray | None = None


@dataclass(repr=False)
class FewShotClassifier(Estimator):
    """A classifier that learns its classes from a few examples, as the model's learner does in an episode.

    Get one from :func:`nas_meta.load_classifier`. Examples are texts, images (``uint8`` arrays of the model's
    ``[channels, height, width]``), or tuples of an image and a text, as the model takes them.

    Attributes:
        parts: The model, its learner and its tokenizer, in torch or as an ONNX graph.
        batch_size: Approximate number of examples per call of the model; more are faster and need more memory.
        source: Folder of the model, which a saved classifier names.
        refuse: Share of the texts of the classes that :meth:`predict` may refuse, in order to refuse texts of no class;
            None never refuses.
        class_names: Whether the name of each class is one more support example, or the name of each class in words;
            None for what the model was trained with.
        fitted: The support set; None before :meth:`fit`.
    """

    parts: Parts
    batch_size: int = 64
    source: str = ""
    refuse: float | None = None
    class_names: bool | Mapping[Label, str] | None = None
    fitted: Fitted | None = None

    def __repr__(self) -> str:
        """Return the classifier with its model, its settings and its classes, short enough for a prompt."""
        names = [] if self.fitted is None else [one_line(str(name)) for name in self.fitted.names]
        more = ", …" if len(names) > SHOWN else ""
        classes = (
            f"{counted(len(names), 'class', 'classes')}: {', '.join(names[:SHOWN])}{more}" if names else "not fitted"
        )
        refuse = "" if self.refuse is None else f"refuse={self.refuse}, "
        return f"FewShotClassifier({self.source!r}, {self.parts.name}, {refuse}{classes})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings that :meth:`set_params` changes.

        Args:
            deep: Ignored; scikit-learn passes it.
        """
        return {name: getattr(self, name) for name in PARAMETERS}

    def set_params(self, **params: Any) -> FewShotClassifier:
        """Change settings.

        Args:
            params: ``batch_size``, ``refuse`` and ``class_names``.

        Returns:
            The classifier.

        Raises:
            ConfigError: There is no such setting, or its value is invalid.
        """
        for name, value in params.items():
            if name not in PARAMETERS:
                raise ConfigError(f"the classifier has no parameter '{name}'; {nearest(name, PARAMETERS)}")
            if name == "refuse":
                value = self._checked_refuse(value)
            elif name == "class_names":
                value = check_class_names(value, self.parts.preparation)
            elif not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; expected a positive integer")
            setattr(self, name, value)
        return self

    @property
    def classes_(self) -> np.ndarray:
        """The classes, sorted; the columns of :meth:`predict_proba`."""
        return label_array(self._state.names)

    @property
    def _state(self) -> Fitted:
        if self.fitted is None:
            raise ConfigError("the classifier has no classes yet; expected a call of fit(texts, labels) before this")
        return self.fitted

    def fit(
        self, texts: Iterable[Any], labels: Iterable[Any], unlabelled: Iterable[Any] | None = None,
        refuse: float | None = None, class_names: bool | Mapping[Label, str] | None = None,
    ) -> FewShotClassifier:  # fmt: skip
        """Learn the classes from labelled examples, one or more of every class.

        Args:
            texts: The examples.
            labels: One label per example: strings, integers or booleans.
            unlabelled: Further examples of the same classes without labels, which refine the classes.
            refuse: Share of the texts of these classes that :meth:`predict` may refuse, such as 0.05, in order to
                refuse texts that belong to none of them; by default the setting ``refuse``, which is off.
            class_names: Whether the name of each class is one more example of it, with spaces for underscores; or the
                name of each class in words, by label. A class that only this mapping has needs no example. By default
                the setting ``class_names``, which is what the model was trained with.

        Returns:
            The classifier.

        Raises:
            DataError: The examples or labels cannot be used.
            ConfigError: The learner cannot distinguish as many classes, cannot use unlabelled examples, or cannot
                refuse; or there are too few examples to refuse.
        """
        if refuse is not None:
            self.set_params(refuse=refuse)
        if class_names is not None:
            self.set_params(class_names=class_names)
        examples, given = self._labelled(texts, labels, ())
        extra = None
        if unlabelled is not None:
            self.parts.check_refinement()
            if listed := self.parts.preparation.checked(unlabelled, "unlabelled"):
                extra = self.parts.embed(listed, self.batch_size, None)
        names = self._names(given)
        if not self.parts.embeds:
            self.fitted = self._in_order(examples, given, names)
            return self
        z = self.parts.embed(examples, self.batch_size, None)
        state = _ordered_embeddings(z, given, names, extra, examples)
        if state.z is not None and self.refuse is not None:
            threshold(self.parts, state.z, state.labels, len(names), self.refuse)  # too few examples are reported here
        self.fitted = state
        return self

    def partial_fit(self, texts: Iterable[Any], labels: Iterable[Any]) -> FewShotClassifier:
        """Add labelled examples, also of new classes; the result is that of :meth:`fit` on all examples.

        With ``class_names``, the names of new classes are added, too.

        Args:
            texts: The examples.
            labels: One label per example, of the type of the known labels.

        Returns:
            The classifier.

        Raises:
            DataError: The examples or labels cannot be used.
            ConfigError: The learner cannot distinguish as many classes.
        """
        if self.fitted is None:
            return self.fit(texts, labels)
        state = self.fitted
        examples, given = self._labelled(texts, labels, state.names)
        known = [state.names[i] for i in state.labels]
        together = plain_labels([*known, *given])
        names = self._names(together)
        if state.z is None:
            self.fitted = self._in_order([*state.examples, *examples], together, names)
            return self
        z = np.concatenate([state.z, self.parts.embed(examples, self.batch_size, None)])
        everything = [*state.examples, *examples] if len(state.examples) == len(known) else []
        self.fitted = _ordered_embeddings(z, together, names, state.unlabelled, everything)
        return self

    def predict(self, texts: Iterable[Any], together: bool = False, progress: Progress | None = None) -> np.ndarray:
        """Predict the class of each example.

        Args:
            texts: The examples.
            together: Whether the examples refine the classes before they are classified (transductive): a prediction
                then depends on the other examples of the call.
            progress: Called with the number of examples that are done.

        Returns:
            ``[M]`` labels; None for an example that is refused, see ``refuse``.
        """
        return self.classify(texts, together, progress)[0]

    def predict_proba(
        self, texts: Iterable[Any], together: bool = False, progress: Progress | None = None
    ) -> np.ndarray:
        """Predict the probability of every class for each example.

        It is the softmax of the learner's logits, divided by the temperature that the model learned on meta-validation
        if it is calibrated. It says how likely each class is if the text belongs to one of them.

        Args:
            texts: The examples.
            together: As for :meth:`predict`.
            progress: Called with the number of examples that are done.

        Returns:
            ``[M, classes]``, columns in the order of ``classes_``.

        Raises:
            DataError: The examples cannot be used.
            ConfigError: The classifier is not fitted, or the learner cannot use ``together``.
        """
        return self._probabilities(texts, together, progress)[0]

    def classify(
        self, texts: Iterable[Any], together: bool = False, progress: Progress | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict classes and probabilities at once, which costs no more than one of them.

        Args:
            texts: The examples.
            together: As for :meth:`predict`.
            progress: Called with the number of examples that are done.

        Returns:
            What :meth:`predict` and :meth:`predict_proba` return.
        """
        probabilities, accepted = self._probabilities(texts, together, progress)
        labels = self.classes_[probabilities.argmax(1)] if len(probabilities) else self.classes_[:0]
        if accepted is not None:
            labels = labels.astype(object)
            labels[~accepted] = None
        return labels, probabilities

    def _probabilities(
        self, texts: Iterable[Any], together: bool, progress: Progress | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return probabilities ``[M, classes]``, and ``[M]`` booleans that are False where the answer is refused."""
        state, parts = self._state, self.parts
        if together:
            parts.check_refinement()
        self._checked_refuse(self.refuse)
        examples = parts.preparation.checked(texts, "texts")
        if not examples:
            return np.zeros((0, len(state.names))), None
        accepted = None
        if state.z is None:
            classes = [str(name) for name in state.names]
            logits = parts.adapted_logits(state.examples, state.labels, classes, examples, progress)
        else:
            z, ways = parts.embed(examples, self.batch_size, progress), len(state.names)
            known = [] if state.unlabelled is None else [state.unlabelled]
            extra = np.concatenate([*known, *([z] if together else [])]) if known or together else None
            logits = parts.logits(state.z, state.labels, ways, z, extra)
            if self.refuse is not None:
                least = threshold(parts, state.z, state.labels, ways, self.refuse)
                accepted = scores(z, state.z, state.labels, ways) >= least
        divisor = 1.0 if parts.calibration is None else parts.calibration.temperature(len(state.names))
        return softmax(logits / divisor), accepted

    def _checked_refuse(self, value: Any) -> float | None:
        """Return a valid share of refused texts, of a model that can refuse."""
        share = check_refuse(value)
        if share is not None:
            check_embeds(self.parts)
        return share

    def score(self, texts: Iterable[Any], labels: Iterable[Any], together: bool = False) -> float:
        """Return the share of examples that are classified correctly.

        Args:
            texts: The examples.
            labels: The true label of each, one of ``classes_``.
            together: As for :meth:`predict`.

        Raises:
            DataError: There are no examples, or a label is not a class of the classifier.
        """
        examples, given = self._checked(texts, labels)
        known = set(self._state.names)
        for label in given:
            if label not in known or type(label) is not type(self._state.names[0]):
                raise DataError(
                    f"the label {label!r} is not a class of the classifier; "
                    f"{nearest(str(label), map(str, self._state.names))}"
                )
        return float(np.mean([a == b for a, b in zip(self.predict(examples, together).tolist(), given, strict=True)]))

    def explain(self, text: Any) -> Explanation:
        """Explain the prediction for one example: the support examples and the words that decide it.

        The contributions of support examples to the score of the predicted class are exact for the learners protonet,
        ridge and matching; :mod:`nas_meta.outputs.explain.shares` has the formulas. A word's effect is what the
        probability loses without it.

        Args:
            text: The example.

        Returns:
            The explanation.

        Raises:
            ConfigError: The classifier is not fitted.
            DataError: The example cannot be used.
        """
        from nas_meta.outputs.explain.prediction import explain_prediction

        return explain_prediction(self, self._state, text)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted classifier, without the model, into a new or empty folder.

        Args:
            folder: The folder; :func:`nas_meta.load_classifier` reads it.

        Returns:
            The folder.

        Raises:
            RunError: The folder is not empty.
        """
        from nas_meta.outputs.classifier.saving import save

        return save(self, self._state, Path(folder))

    def _labelled(
        self, texts: Iterable[Any], labels: Iterable[Any], known: Sequence[Label]
    ) -> tuple[list[Example], list[Label]]:
        """Return examples and labels, checked, and the names of the classes that are not known yet."""
        zero_shot = isinstance(self.class_names, Mapping)
        examples, given = self._checked(texts, labels, allow_none=zero_shot)
        new = sorted(set(given) - set(known))
        words, classes = name_examples(new, self.class_names, self.parts.preparation)
        kept = [i for i, label in enumerate(classes) if label not in known]
        return [*examples, *(words[i] for i in kept)], [*given, *(classes[i] for i in kept)]

    def _checked(
        self, texts: Iterable[Any], labels: Iterable[Any], allow_none: bool = False
    ) -> tuple[list[Example], list[Label]]:
        """Return examples and labels, checked."""
        examples, given = self.parts.preparation.checked(texts, "texts"), plain_labels(labels)
        if len(examples) != len(given):
            raise DataError(f"there are {len(examples)} examples and {len(given)} labels; expected one label each")
        if not examples and not allow_none:
            raise DataError("there are no examples; expected at least one of every class")
        return examples, given

    def _names(self, labels: list[Label]) -> list[Label]:
        """Return the sorted classes, of which the learner can distinguish as many."""
        names = sorted(set(labels))
        if len(names) < 2:
            raise DataError(f"all examples have the label {names[0]!r}; expected at least two classes")
        self.parts.check_ways(len(names))
        return names

    def _in_order(self, examples: list[Example], labels: list[Label], names: list[Label]) -> Fitted:
        """Return a support set sorted by class and content, on which the order of the rows has no influence."""
        of = {name: i for i, name in enumerate(names)}
        order = sorted(range(len(labels)), key=lambda i: (of[labels[i]], repr(content_key(examples[i]))))
        return Fitted(names, np.array([of[labels[i]] for i in order]), [examples[i] for i in order])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Compute the softmax of logits ``[M, N]`` over the classes, in double precision."""
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _ordered_embeddings(
    z: np.ndarray, labels: list[Label], names: list[Label], unlabelled: np.ndarray | None, examples: list[Example]
) -> Fitted:
    """Return embeddings sorted by class and value, on which the order of the rows has no influence."""
    of = {name: i for i, name in enumerate(names)}
    classes = np.array([of[label] for label in labels])
    # Rounded, because an embedding depends on its batch in the last bits; lexsort's last key comes first.
    order = np.lexsort((*np.round(z[:, :8], 4).T[::-1], classes))
    return Fitted(names, classes[order], [examples[i] for i in order] if examples else (), z[order], unlabelled)
