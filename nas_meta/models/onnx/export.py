"""From a model with its pooling to one ONNX graph: tokens or pixels in, an embedding out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas_meta.core.guard import first_line
from nas_meta.errors import ConfigError
from nas_meta.models.onnx.forms import OUTPUT
from nas_meta.tasks.examples import IMAGE, TEXT

if TYPE_CHECKING:
    from nas_meta.models.encoder import Encoder

OPSET = 18  # runs on onnxruntime 1.14 and later
BATCH, TOKENS = 3, 11  # of the example; sizes of 0 and 1 would become constants of the graph
TEXT_INPUTS = ("input_ids", "attention_mask")


class EncoderGraph(nn.Module):
    """A model with its pooling, whose inputs have an order.

    Args:
        encoder: The encoder.
        names: Names of the inputs, in the order of :meth:`forward`.
    """

    def __init__(self, encoder: Encoder, names: tuple[str, ...]):
        super().__init__()
        self.encoder, self.names = encoder, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            inputs: Tensors, in the order of the names.

        Returns:
            ``[B, D]``.
        """
        return self.encoder(**dict(zip(self.names, inputs, strict=True)))


def example(modality: str, image_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Return the inputs that a graph is traced with.

    Args:
        modality: ``text``, ``image`` or ``image-text``.
        image_shape: Channels, height and width of an image; empty for texts.

    Returns:
        Texts with padding, and images of zeros.
    """
    inputs: dict[str, Tensor] = {}
    if modality != IMAGE:
        mask = torch.ones(BATCH, TOKENS, dtype=torch.long)
        mask[0, TOKENS // 2 :] = 0
        inputs |= {"input_ids": mask.clone(), "attention_mask": mask}
    if modality != TEXT:
        inputs["pixel_values"] = torch.zeros(BATCH, *image_shape)
    return inputs


def write_graph(graph: nn.Module, inputs: Mapping[str, Tensor], file: Path) -> None:
    """Write a module as an ONNX graph whose batch size and text length are free.

    Args:
        graph: The module, on the CPU, in evaluation mode and in float32; it takes the inputs in their order.
        inputs: What :func:`example` returned.
        file: File to write.

    Raises:
        ConfigError: torch cannot translate the model.
    """
    batch, tokens = torch.export.Dim("batch", min=1, max=65536), torch.export.Dim("tokens", min=1, max=65536)
    automatic = torch.export.Dim.AUTO
    shapes = [{0: batch, 1: tokens} if name in TEXT_INPUTS else {0: batch} for name in inputs]
    relaxed = [dict.fromkeys(shape, automatic) for shape in shapes]
    errors: list[Exception] = []
    for wanted in (relaxed, shapes):  # models differ in which of the two torch accepts
        try:
            with _quiet():
                program = torch.onnx.export(
                    graph, tuple(inputs.values()), dynamo=True, opset_version=OPSET, verbose=False,
                    input_names=list(inputs), output_names=[OUTPUT], dynamic_shapes=(tuple(wanted),),
                )  # fmt: skip
                program.save(str(file), external_data=False)
                _drop_metadata(file)
            return
        except Exception as error:  # the exporter raises errors of many libraries
            errors.append(error)
    raise ConfigError(
        f"the model cannot be exported as an ONNX graph ({first_line(errors[0])}); expected a model that torch.onnx "
        "can translate"
    ) from errors[0]


def _drop_metadata(file: Path) -> None:
    """Remove what the exporter notes of its own work, such as stack traces with the paths of this machine."""
    import onnx

    model = onnx.load(str(file))
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.save(model, str(file))


@contextlib.contextmanager
def _quiet():
    """Keep the notes of the exporter, which are about its own code, off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
