"""The file that describes an ONNX folder: all that a classifier needs beside the graph and the tokenizer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas_meta.core.files import regular_file
from nas_meta.errors import ConfigError
from nas_meta.models.onnx.forms import NONE, QUANTIZATIONS
from nas_meta.tasks.examples import MODALITIES

DESCRIPTION, GRAPH, TOKENIZER = "onnx.json", "model.onnx", "tokenizer.json"
VERSION = 1
MOST_BYTES = 1024**2


@dataclass(frozen=True)
class Description:
    """What an ONNX folder says of its model.

    Attributes:
        learner: Name of the learner, for error messages.
        comparison: How the learner compares embeddings; see :mod:`nas_meta.outputs.onnx.comparison`.
        modality: ``text``, ``image`` or ``image-text``.
        width: D, the length of an embedding.
        quantization: ``none``, ``int8`` (activations are scaled at run time) or ``int8-static`` (scales are fixed).
        max_tokens: Texts are cut to this many tokens.
        truncation_side: Which end of a long text is cut: ``right`` or ``left``.
        image_shape: Channels, height and width of an image; empty for texts.
        class_names: Whether the model was trained with the names of classes as support examples.
    """

    learner: str
    comparison: Mapping[str, Any]
    modality: str
    width: int
    quantization: str = NONE
    max_tokens: int = 0
    truncation_side: str = "right"
    image_shape: tuple[int, ...] = field(default=())
    class_names: bool = False

    def write(self, folder: Path) -> None:
        """Write ``onnx.json``.

        Args:
            folder: Existing folder.
        """
        document = {"version": VERSION, **dataclasses.asdict(self)}
        (folder / DESCRIPTION).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_description(folder: Path) -> Description:
    """Read the description of an ONNX folder.

    Args:
        folder: Folder that ``nas-meta export --format onnx`` wrote.

    Returns:
        The description.

    Raises:
        ConfigError: The file is damaged, or a newer version wrote it.
    """
    file = folder / DESCRIPTION
    expected = "expected what 'nas-meta export --format onnx' wrote"
    try:
        document = json.loads(regular_file(file, MOST_BYTES).read_text(encoding="utf-8"))
        version = document.pop("version")
        if version != VERSION:
            raise ConfigError(f"{file} has the version {version!r}; expected {VERSION}, or a newer nas-meta")
        found = Description(**document | {"image_shape": tuple(document["image_shape"])})
        valid = (
            isinstance(found.learner, str) and isinstance(found.comparison, dict)
            and found.modality in MODALITIES and found.quantization in QUANTIZATIONS
            and found.truncation_side in ("right", "left") and isinstance(found.class_names, bool)
            and all(type(n) is int and n >= 0 for n in (found.width, found.max_tokens, *found.image_shape))
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read; {expected}") from error
    if not valid:
        raise ConfigError(f"{file} is damaged; {expected}")
    return found
