"""Run an ONNX folder with onnxruntime and tokenizers alone: the other implementation of a classifier's model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas_meta.core.files import regular_file
from nas_meta.core.guard import first_line
from nas_meta.errors import ConfigError
from nas_meta.evaluation.calibration import Calibration, read_calibration
from nas_meta.models.onnx.forms import INT8
from nas_meta.models.onnx.session import open_session
from nas_meta.outputs.classifier.example_checks import checked_examples
from nas_meta.outputs.classifier.parts import Progress, refuse_refinement
from nas_meta.outputs.onnx.comparison import PROTOTYPES, check_comparison, compare
from nas_meta.outputs.onnx.description import DESCRIPTION, GRAPH, TOKENIZER, Description, read_description
from nas_meta.tasks.examples import IMAGE, TEXT, Example, images_of, pixel_values, texts_of

CHUNK = 1024  # examples between two reports of progress
LONGEST_TOKEN = 1000  # characters of a token at most: texts are cut by it before they are tokenised


@dataclass(frozen=True)
class OnnxPreparation:
    """How the examples of an ONNX model are checked and tokenised.

    Attributes:
        modality: ``text``, ``image`` or ``image-text``.
        image_shape: Channels, height and width of an image; empty for texts.
        max_tokens: Texts are cut to this many tokens.
        tokenizer: A ``tokenizers.Tokenizer`` that truncates and does not pad; None for images.
        class_names: Whether the model was trained with the names of classes as support examples.
    """

    modality: str
    image_shape: tuple[int, ...]
    max_tokens: int
    tokenizer: Any
    class_names: bool = False

    def checked(self, examples: Iterable[Any], name: str) -> list[Example]:
        """Return examples that the model takes.

        Args:
            examples: Texts, images, or tuples of both.
            name: Name of the argument, for error messages.

        Returns:
            The examples.

        Raises:
            DataError: Something is not an example of the model's modality.
        """
        return checked_examples(examples, name, self.modality, self.image_shape)

    def token_ids(self, examples: Sequence[Example]) -> list[list[int]]:
        """Tokenise the texts of examples; images alone have no tokens.

        Args:
            examples: What :meth:`checked` returned.

        Returns:
            The token ids of each example.
        """
        if self.modality == IMAGE:
            return [[] for _ in examples]
        texts = [text[: LONGEST_TOKEN * self.max_tokens] for text in texts_of(examples)]
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]


@dataclass(frozen=True)
class OnnxParts:
    """A trained model as an ONNX graph, with the comparison of its learner.

    Attributes:
        session: The ``onnxruntime.InferenceSession``.
        description: What ``onnx.json`` says.
        preparation: How examples are prepared.
        folder: The folder.
        calibration: What the model learned about its own scores in torch; None for models that are not calibrated.
    """

    session: Any
    description: Description
    preparation: OnnxPreparation
    folder: Path
    calibration: Calibration | None = None

    embeds = True  # only learners that classify from embeddings are exported

    @property
    def name(self) -> str:
        """Name of the learner."""
        return self.description.learner

    @property
    def comparison(self) -> Mapping[str, Any]:
        """How the learner compares embeddings."""
        return self.description.comparison

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.description.width

    def check_ways(self, classes: int) -> None:
        """Accept any number of classes, as all exported learners do.

        Args:
            classes: Number of classes.
        """

    def check_refinement(self) -> None:
        """Check that unlabelled examples can refine the classes.

        Raises:
            ConfigError: The learner has no prototypes.
        """
        if self.description.comparison["kind"] != PROTOTYPES:
            raise refuse_refinement(self.name)

    def embed(self, examples: Sequence[Example], batch_size: int, progress: Progress | None) -> np.ndarray:
        """Embed examples in batches of about one length.

        With activations that are scaled at run time (``int8``), examples are embedded one by one: the scale depends on
        the whole batch, and a prediction must not depend on the other texts of the call.

        Args:
            examples: The examples.
            batch_size: Number of examples per call of the model.
            progress: Called after each chunk.

        Returns:
            ``[M, D]``.
        """
        rows = 1 if self.description.quantization == INT8 else batch_size
        z = np.zeros((len(examples), self.width), np.float32)
        for start in range(0, len(examples), CHUNK):
            chunk = examples[start : start + CHUNK]
            ids = self.preparation.token_ids(chunk)
            order = np.argsort([len(text) for text in ids], kind="stable")
            for batch in np.array_split(order, max(1, -(-len(order) // rows))):
                inputs = self.inputs([chunk[i] for i in batch], [ids[i] for i in batch])
                z[start + batch] = self.session.run(None, inputs)[0]
            if progress is not None:
                progress(start + len(chunk))
        return z

    def inputs(self, examples: Sequence[Example], ids: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        """Return the inputs of the graph for one batch.

        Args:
            examples: The examples.
            ids: Their token ids.

        Returns:
            ``input_ids`` and ``attention_mask`` ``[B, T]`` for texts, ``pixel_values`` for images.
        """
        inputs = {}
        if self.preparation.modality != IMAGE:
            lengths = np.array([len(text) for text in ids])
            mask = np.arange(max(1, lengths.max(initial=1)))[None] < lengths[:, None]
            padded = np.zeros(mask.shape, np.int64)
            padded[mask] = np.concatenate([np.asarray(text, np.int64) for text in ids])
            inputs |= {"input_ids": padded, "attention_mask": mask.astype(np.int64)}
        if self.preparation.modality != TEXT:
            inputs["pixel_values"] = pixel_values(images_of(examples))
        return inputs

    def logits(
        self, support: np.ndarray, labels: np.ndarray, ways: int, queries: np.ndarray, unlabelled: np.ndarray | None
    ) -> np.ndarray:
        """Classify embeddings; see :func:`nas_meta.outputs.onnx.comparison.compare`."""
        return compare(self.description.comparison, support, labels, ways, queries, unlabelled)

    def adapted_logits(
        self, support: Sequence[Example], labels: np.ndarray, classes: Sequence[str], queries: Sequence[Example],
        progress: Progress | None,
    ) -> np.ndarray:  # fmt: skip
        """Embed both sets and compare them.

        Args:
            support: The support examples.
            labels: ``[support]``, the class of each.
            classes: Names of the classes.
            queries: Examples to classify.
            progress: Called after each chunk.

        Returns:
            ``[queries, classes]``.
        """
        s, q = self.embed(support, 64, None), self.embed(queries, 64, progress)
        return self.logits(s, labels, len(classes), q, None)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the graph and its description."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(asdict(self.description), sort_keys=True).encode())
        with (self.folder / GRAPH).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


def load_parts(folder: Path, device: str | None = None, threads: int = 0) -> OnnxParts:
    """Load an ONNX folder.

    Args:
        folder: Folder that ``nas-meta export --format onnx`` wrote.
        device: ``cpu`` or None.
        threads: CPU threads; 0 leaves the number to onnxruntime.

    Returns:
        The model.

    Raises:
        ConfigError: A package is not installed, or the folder cannot be loaded.
    """
    if device not in (None, "cpu"):
        raise ConfigError(f"device is {device!r}; {folder} holds an ONNX model, which runs on the device cpu")
    description = read_description(folder)
    check_comparison(description.comparison, description.learner, str(folder / DESCRIPTION))
    try:
        tokenizer = None if description.modality == IMAGE else _tokenizer(folder, description)
        session = open_session(folder / GRAPH, threads)
    except ConfigError:
        raise
    except ImportError as error:
        raise _missing(folder, "onnxruntime") from error
    except Exception as error:  # a folder may hold anything, and both libraries raise bare exceptions
        raise ConfigError(f"{folder} cannot be loaded: {first_line(error, with_type=False)}") from error
    names = {"input_ids", "attention_mask"} if description.modality == TEXT else {"pixel_values"}
    takes, gives = {value.name for value in session.get_inputs()}, session.get_outputs()[0].shape
    if not names <= takes or len(gives) != 2 or gives[1] != description.width:
        raise ConfigError(
            f"{folder / GRAPH} takes {', '.join(sorted(takes))} and gives {gives}, but {DESCRIPTION} describes a model "
            f"that takes {', '.join(sorted(names))} and gives {description.width} numbers"
        )
    preparation = OnnxPreparation(
        description.modality, description.image_shape, description.max_tokens, tokenizer, description.class_names
    )
    return OnnxParts(session, description, preparation, folder, read_calibration(folder))


def _tokenizer(folder: Path, description: Description) -> Any:
    """Return the tokenizer of a folder, which truncates and does not pad."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise _missing(folder, "tokenizers") from error
    tokenizer = Tokenizer.from_file(str(regular_file(folder / TOKENIZER)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(description.max_tokens, direction=description.truncation_side)
    return tokenizer


def _missing(folder: Path, package: str) -> ConfigError:
    """Return the error for a package that is not installed."""
    return ConfigError(
        f"{folder} holds an ONNX model, which needs the package {package}, which is not installed: pip install "
        "onnxruntime tokenizers"
    )
