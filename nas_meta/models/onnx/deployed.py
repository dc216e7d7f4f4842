"""A model with its pooling in the form in which it is deployed: its latency, and its embeddings.

A graph is written, opened and deleted; the session keeps what it needs. Writing the graph takes seconds for an encoder
of six layers, whatever its weights: most of the time is tracing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nas_meta.models.adapters import without_adapters
from nas_meta.models.encoder import IMAGES, Encoder
from nas_meta.models.inputs import example_inputs
from nas_meta.models.onnx.export import EncoderGraph, example, write_graph
from nas_meta.models.onnx.forms import INT8, NONE, ONNX_INT8, QUANTIZATION, check_packages
from nas_meta.models.onnx.quantization import quantize
from nas_meta.models.onnx.session import open_session
from nas_meta.models.profiling import LatencySettings, timed

if TYPE_CHECKING:
    from nas_meta.space.search_space import SearchSpace
    from nas_meta.tasks.pool import Pool


def deployed_session(encoder: Encoder, form: str, space: SearchSpace, threads: int) -> Any:
    """Write an encoder as an ONNX graph and open it; adapters are merged, and the encoder is left as it was.

    Args:
        encoder: The encoder.
        form: ``onnx`` or ``onnx-int8``, which quantises weights and embedding tables as ``nas-meta export --quantize
            int8`` does.
        space: The space of the model, which names its inputs.
        threads: CPU threads of the session.

    Returns:
        The ``onnxruntime.InferenceSession``.

    Raises:
        ConfigError: A package is not installed, or torch cannot translate the model.
    """
    check_packages(f"the form {form}")
    inputs = example(space.modality, space.image_shape)
    # A copy: tracing changes modes and the precision, and training may continue with the encoder.
    model = without_adapters(deepcopy(encoder.model).cpu().float(), merge=True)
    plain = Encoder(model, encoder.pooling, example=example_inputs(space, 1, 1))
    with tempfile.TemporaryDirectory(prefix="nas-meta-") as folder, torch.random.fork_rng():
        graph, quantised = Path(folder) / "float.onnx", Path(folder) / "model.onnx"
        write_graph(EncoderGraph(plain, tuple(inputs)).eval(), inputs, graph)
        if QUANTIZATION[form] == NONE:
            return open_session(graph, threads)
        quantize(graph, quantised, INT8, True, [])
        return open_session(quantised, threads)


def deployed_latency(encoder: Encoder, space: SearchSpace, settings: LatencySettings) -> dict[str, float]:
    """Measure the latency of an encoder as an ONNX graph on the CPU.

    Args:
        encoder: The encoder; its weights do not affect the time.
        space: The space of the model.
        settings: Form, batch, tokens, threads and duration of the measurement.

    Returns:
        What :func:`nas_meta.models.profiling.latency` returns.

    Raises:
        ConfigError: A package is not installed, or torch cannot translate the model.
    """
    session = deployed_session(encoder, settings.form, space, settings.threads)
    arrays = {name: t.numpy() for name, t in example_inputs(space, settings.batch, settings.tokens).items()}
    return timed("session.run(None, arrays)", {"session": session, "arrays": arrays}, settings)


def deployed_embedding(session: Any, form: str) -> Callable[[Pool, np.ndarray], np.ndarray]:
    """Return the function that embeds examples of a pool with a session, as a classifier of an ONNX folder does.

    The scales of INT8 activations depend on the whole batch, so texts are embedded one by one then.

    Args:
        session: What :func:`deployed_session` returned.
        form: ``onnx`` or ``onnx-int8``.

    Returns:
        A function of a pool and indices ``[M]`` that returns embeddings ``[M, D]``.
    """
    rows = 1 if form == ONNX_INT8 else IMAGES

    def embed(pool: Pool, indices: np.ndarray) -> np.ndarray:
        order = np.argsort(pool.lengths[indices], kind="stable")
        batches = np.array_split(order, max(1, -(-len(order) // rows)))
        parts = [session.run(None, pool.inputs(indices[batch]))[0] for batch in batches]
        return np.concatenate(parts)[np.argsort(order, kind="stable")]

    return embed
