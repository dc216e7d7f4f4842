"""From a trained model to one ONNX graph: tokens or pixels in, the embedding that the learner compares out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from nas_meta.errors import ConfigError
from nas_meta.learners.heads import NONE, Map, apply
from nas_meta.models.onnx.export import EncoderGraph, example, write_graph
from nas_meta.outputs.export.sentence_transformer import on_unit_sphere

if TYPE_CHECKING:
    from nas_meta.models.encoder import Encoder
    from nas_meta.outputs.classifier.adaptation import ModelParts


class EmbeddingGraph(EncoderGraph):
    """A model with its pooling, the head that was fitted to it, and the scaling to unit norm.

    Args:
        encoder: The trained encoder.
        names: Names of the inputs, in the order of :meth:`forward`.
        unit: Whether the learner scales embeddings to unit norm before it compares them.
    """

    def __init__(self, encoder: Encoder, names: tuple[str, ...], unit: bool):
        super().__init__(encoder, names)
        self.unit = unit
        head = getattr(encoder.learned, "head", None)
        self.head = None if head is None or head.name == NONE else head

    def forward(self, *inputs: Tensor) -> Tensor:
        z = super().forward(*inputs)
        if self.head is not None:
            z = apply(Map(self.head.mean, self.head.matrix), z)
        return F.normalize(z, dim=-1) if self.unit else z


def finished(parts: ModelParts, z: Tensor) -> Tensor:
    """Return embeddings as the graph gives them.

    Args:
        parts: The model.
        z: ``[M, D]`` embeddings after the head.

    Returns:
        ``[M, D]``; of unit norm if the learner compares them so.
    """
    return F.normalize(z, dim=-1) if on_unit_sphere(parts.learner.options) else z


def write_embedding_graph(parts: ModelParts, file: Path) -> None:
    """Write a model as an ONNX graph whose batch size and text length are free.

    Args:
        parts: The model, on the CPU.
        file: File to write.

    Raises:
        ConfigError: torch cannot translate the model.
    """
    inputs = example(parts.preparation.modality, parts.preparation.image_shape)
    unit = on_unit_sphere(parts.learner.options)
    graph = EmbeddingGraph(parts.encoder.eval().float(), tuple(inputs), unit).eval()
    try:
        write_graph(graph, inputs, file)
    except ConfigError as error:
        raise ConfigError(f"{error}; export it without --format onnx") from error
