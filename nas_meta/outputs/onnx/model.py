"""Write the graph of a loaded model into a folder, and measure what it is worth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.errors import ConfigError, RunError
from nas_meta.models.onnx.forms import NONE, STATIC
from nas_meta.models.onnx.quantization import quantize
from nas_meta.outputs.onnx.description import GRAPH, Description
from nas_meta.outputs.onnx.gates import (
    EXAMPLES,
    TOLERANCE,
    Latency,
    Paired,
    cpu,
    examples_of,
    latencies,
    paired,
    parity,
)
from nas_meta.outputs.onnx.graph import write_embedding_graph
from nas_meta.outputs.onnx.learner import comparison_of
from nas_meta.outputs.onnx.session import OnnxParts, load_parts
from nas_meta.tasks.examples import MODALITIES

if TYPE_CHECKING:
    from nas_meta.models.profiling import LatencySettings
    from nas_meta.outputs.classifier.adaptation import ModelParts
    from nas_meta.tasks.episodes import Episode
    from nas_meta.tasks.pool import Pool, Tasks

CALIBRATION = 128  # examples of meta-train that fix the scales of int8-static
FLOAT = "float.onnx"  # graph that is not kept


@dataclass(frozen=True)
class Gates:
    """What was measured of an ONNX folder.

    Attributes:
        difference: Largest difference of an embedding in float32; see :func:`nas_meta.outputs.onnx.gates.parity`.
        examples: Number of examples that it was measured on.
        modality: ``text``, ``image`` or ``image-text``.
        quantization: ``none``, ``int8`` or ``int8-static``.
        float_bytes: Size of the graph in float32.
        bytes: Size of the graph that was written.
        paired: Accuracies on the meta-test episodes; None without quantisation.
        torch: Latency of the torch model.
        onnx: Latency of the ONNX model.
        settings: Batch, tokens and threads of the latencies.
        cpu: Name of the CPU.
        flags: Flags of the CPU that matter for INT8.
    """

    difference: float
    examples: int
    modality: str
    quantization: str
    float_bytes: int
    bytes: int
    paired: Paired | None
    torch: Latency
    onnx: Latency
    settings: LatencySettings
    cpu: str
    flags: Sequence[str]


def write_description(parts: ModelParts, folder: Path) -> Description:
    """Write ``onnx.json`` for a model in float32.

    Args:
        parts: The model.
        folder: Existing folder.

    Returns:
        The description.

    Raises:
        ConfigError: The learner or the tokenizer needs torch or transformers.
    """
    preparation = parts.preparation
    tokenizer = preparation.tokenizer
    if tokenizer is not None and not tokenizer.is_fast:
        raise ConfigError(
            f"the tokenizer {type(tokenizer).__name__} is written in Python, so the model cannot be exported as an "
            "ONNX graph; expected a tokenizer with a tokenizer.json, or an export without --format onnx"
        )
    description = Description(
        learner=parts.name,
        comparison=comparison_of(parts),
        modality=preparation.modality,
        width=parts.width,
        max_tokens=0 if tokenizer is None else preparation.max_tokens,
        truncation_side="right" if tokenizer is None else tokenizer.truncation_side,
        image_shape=tuple(preparation.image_shape),
        class_names=preparation.class_names,
    )
    description.write(folder)
    return description


def write_model(
    reference: ModelParts, folder: Path, tasks: Tasks, episodes: Sequence[Episode], quantization: str, tables: bool,
    settings: LatencySettings,
) -> Gates:  # fmt: skip
    """Write ``model.onnx`` beside the tokenizer, and measure it.

    Args:
        reference: The torch model, on the CPU.
        folder: Folder with the tokenizer; ``onnx.json`` is written, too.
        tasks: Examples to measure and to calibrate on.
        episodes: Meta-test episodes.
        quantization: ``none``, ``int8`` or ``int8-static``.
        tables: Whether a quantisation includes the embedding tables.
        settings: Batch, tokens, threads and duration of the latencies.

    Returns:
        What was measured.

    Raises:
        ConfigError: The model or its learner cannot be exported.
        RunError: The graph gives other embeddings than the torch model.
    """
    description = write_description(reference, folder)
    test = tasks["meta-test"]
    examples = examples_of(test, np.linspace(0, len(test) - 1, min(EXAMPLES, len(test))).astype(int))
    write_embedding_graph(reference, folder / GRAPH)
    parts = load_parts(folder)
    difference = parity(reference, parts, examples)
    if difference > TOLERANCE:
        raise RunError(
            f"the ONNX graph differs from the torch model by {difference:.1e} over {len(examples)} "
            f"{MODALITIES[description.modality]}; expected at most {TOLERANCE:.0e}; nothing was written"
        )
    float_bytes, judged = os.path.getsize(folder / GRAPH), None
    if quantization != NONE:
        feeds = calibration(parts, tasks["meta-train"]) if quantization == STATIC else []
        (folder / GRAPH).rename(folder / FLOAT)
        quantize(folder / FLOAT, folder / GRAPH, quantization, tables, feeds)
        (folder / FLOAT).unlink()
        replace(description, quantization=quantization).write(folder)
        judged = paired(reference, load_parts(folder), test, episodes)
    torch_latency, onnx_latency = latencies(reference, folder, settings)
    return Gates(
        difference, len(examples), description.modality, quantization, float_bytes, os.path.getsize(folder / GRAPH),
        judged, torch_latency, onnx_latency, settings, *cpu(),
    )  # fmt: skip


def calibration(parts: OnnxParts, pool: Pool) -> list[dict[str, np.ndarray]]:
    """Return inputs for the scales of ``int8-static``: examples of meta-train, evenly spread.

    Args:
        parts: The model in float32.
        pool: The meta-train examples.

    Returns:
        One feed per example.
    """
    chosen = examples_of(pool, np.linspace(0, len(pool) - 1, min(CALIBRATION, len(pool))).astype(int))
    return [parts.inputs([each], parts.preparation.token_ids([each])) for each in chosen]
