"""A fitted classifier on disk: JSON and safetensors, a few KB beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.core.files import refuse_occupied, regular_file
from nas_meta.errors import ConfigError, RunError
from nas_meta.outputs.classifier.labels import plain_labels
from nas_meta.outputs.classifier.refusal import check_refuse
from nas_meta.tasks.examples import IMAGE, TEXT, images_of, texts_of

if TYPE_CHECKING:
    from nas_meta.outputs.classifier.classifier import FewShotClassifier, Fitted

FITTED, TENSORS = "classifier.json", "support.safetensors"
VERSION = 1
MOST_BYTES = 256 * 1024**2


def save(classifier: FewShotClassifier, state: Fitted, folder: Path) -> Path:
    """Write a fitted classifier.

    Args:
        classifier: The classifier.
        state: Its support set.
        folder: New or empty folder.

    Returns:
        The folder.

    Raises:
        ConfigError: safetensors is not installed.
        RunError: The folder is not empty, or the model was adapted to one task, whose folder is the classifier.
    """
    save_file = _safetensors("save").save_file
    refuse_occupied(folder)
    if state.z is None and not state.examples:
        raise RunError(f"{classifier.source} is a classifier already; expected load_classifier with this folder")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"labels": state.labels.astype(np.int64)}
    if state.z is not None:
        tensors["embeddings"] = state.z
    if state.unlabelled is not None:
        tensors["unlabelled"] = state.unlabelled
    modality = classifier.parts.preparation.modality
    document: dict[str, Any] = {
        "version": VERSION, "model": classifier.source, "fingerprint": classifier.parts.fingerprint(),
        "learner": classifier.parts.name, "classes": state.names,
    }  # fmt: skip
    if classifier.refuse is not None:
        document["refuse"] = classifier.refuse
    if classifier.class_names is not None:
        # The words of a mapping are support examples already.
        document["class_names"] = classifier.class_names is not False
    if state.z is None and modality != IMAGE:
        document["texts"] = texts_of(state.examples)
    if state.z is None and modality != TEXT:
        tensors["images"] = images_of(state.examples)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / TENSORS)
    (folder / FITTED).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return folder


def read_document(folder: Path) -> dict[str, Any]:
    """Read the description of a saved classifier.

    Args:
        folder: Folder that :func:`save` wrote.

    Returns:
        The content of its JSON file.

    Raises:
        ConfigError: The file is damaged, or a newer version wrote it.
    """
    file = folder / FITTED
    try:
        document = json.loads(regular_file(file, MOST_BYTES).read_text(encoding="utf-8"))
        wrong = not (
            isinstance(document["model"], str) and isinstance(document["fingerprint"], str)
            and len(plain_labels(document["classes"])) >= 2
            and all(isinstance(text, str) for text in document.get("texts", []))
            and document.get("class_names") in (None, True, False)
        )  # fmt: skip
        check_refuse(document.get("refuse"))
        version = document["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        raise ConfigError(f"{file} cannot be read; expected what FewShotClassifier.save() wrote") from error
    if version != VERSION:
        raise ConfigError(f"{file} has the version {version!r}; expected {VERSION}, or a newer nas-meta")
    if wrong:
        raise ConfigError(f"{file} is damaged; expected what FewShotClassifier.save() wrote")
    return document


def restore(classifier: FewShotClassifier, folder: Path, document: dict[str, Any]) -> FewShotClassifier:
    """Give a classifier the support set of a saved one.

    Args:
        classifier: A classifier of the same model.
        folder: Folder of the saved classifier.
        document: What :func:`read_document` returned.

    Returns:
        The classifier.

    Raises:
        ConfigError: The saved classifier belongs to another model, its file is damaged, or safetensors is not
            installed.
    """
    from nas_meta.outputs.classifier.classifier import Fitted

    load_file = _safetensors("load").load_file
    if document["fingerprint"] != classifier.parts.fingerprint():
        raise ConfigError(
            f"{folder} was fitted with another model than {classifier.source}: weights, pooling or learner differ; "
            "expected the model that it was fitted with, or fit again"
        )
    from safetensors import SafetensorError

    file, classifier.refuse = folder / TENSORS, check_refuse(document.get("refuse"))
    classifier.class_names = document.get("class_names")
    try:
        tensors = load_file(file)
        labels, names = tensors["labels"].astype(np.int64), document["classes"]
        if sorted(set(labels.tolist())) != list(range(len(names))):
            raise ValueError("labels")
        if not classifier.parts.embeds:
            texts, images = document.get("texts"), tensors.get("images")
            modality = classifier.parts.preparation.modality
            raw = texts if modality == TEXT else images if modality == IMAGE else zip(images, texts, strict=True)
            examples = classifier.parts.preparation.checked(raw, FITTED)
            if len(examples) != len(labels):
                raise ValueError("examples")
            classifier.fitted = Fitted(names, labels, examples)
            return classifier
        z, unlabelled = tensors["embeddings"], tensors.get("unlabelled")
        if z.shape != (len(labels), classifier.parts.width):
            raise ValueError("embeddings")
        classifier.fitted = Fitted(names, labels, z=z, unlabelled=unlabelled)
        return classifier
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{file} is damaged; expected what FewShotClassifier.save() wrote") from error


def _safetensors(verb: str) -> Any:
    """Return the package that reads and writes the embeddings, which an installation for ONNX alone may lack."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ConfigError(
            f"to {verb} a fitted classifier needs the package safetensors, which is not installed: "
            "pip install safetensors"
        ) from error
    return safetensors.numpy
