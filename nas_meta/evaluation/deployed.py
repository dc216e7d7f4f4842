"""A trial in the form in which its model is deployed: latency and accuracy of an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas_meta.errors import ConfigError
from nas_meta.models.adapters import without_adapters
from nas_meta.models.inputs import example_inputs
from nas_meta.models.onnx.deployed import deployed_embedding, deployed_latency, deployed_session
from nas_meta.models.onnx.forms import TORCH
from nas_meta.models.profiling import LatencySettings, latency, release_memory

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.models.encoder import Encoder
    from nas_meta.space.architecture import Architecture


def measured_latency(evaluation: Evaluation, architecture: Architecture, settings: LatencySettings) -> dict[str, float]:
    """Measure the latency of an architecture's model as it would be exported: fp32, adapters merged, not compiled.

    Args:
        evaluation: The evaluation of the search.
        architecture: Architecture of the joint space; its weights are random, which does not affect the time.
        settings: Form, batch, tokens, threads and duration of the measurement.

    Returns:
        What :func:`nas_meta.models.profiling.latency` returns.

    Raises:
        ConfigError: The form is an ONNX graph, which torch cannot write of this model.
    """
    model = without_adapters(evaluation.space.build(architecture), merge=True)
    try:
        if settings.form != TORCH:
            return deployed_latency(evaluation.of(architecture).bare_encoder(model), evaluation.space, settings)
        inputs = example_inputs(evaluation.space, settings.batch, settings.tokens)
        return latency(model.to(evaluation.device), settings, inputs)
    finally:
        del model
        release_memory(evaluation.device)


def deployed_accuracies(evaluation: Evaluation, encoder: Encoder, form: str, split: str, count: int) -> np.ndarray:
    """Evaluate a trained encoder in the form in which it is deployed, on the same episodes as in torch.

    The graph embeds; a head, if there is one, and the comparison of embeddings are those of the learner in torch, which
    are not quantised in an export either.

    Args:
        evaluation: The evaluation of the search; its learner classifies from embeddings.
        encoder: The trained encoder; it is left as it was.
        form: ``onnx`` or ``onnx-int8``.
        split: ``meta-train``, ``meta-validation`` or ``meta-test``.
        count: Number of episodes.

    Returns:
        ``[count]``, the accuracy on each episode, from 0 to 1.
    """
    with deployed_as(encoder, form, evaluation):
        return evaluation.accuracies(encoder, split, count)


@contextmanager
def deployed_as(encoder: Encoder, form: str, evaluation: Evaluation) -> Iterator[None]:
    """Let an ONNX graph of the encoder embed inside the block, in evaluation mode.

    Args:
        encoder: The encoder.
        form: ``onnx`` or ``onnx-int8``.
        evaluation: The evaluation, with the space and the threads of a trial.
    """
    session = deployed_session(encoder, form, evaluation.space, max(1, evaluation.threads))
    encoder.deployed = deployed_embedding(session, form)
    try:
        yield
    finally:
        encoder.deployed = None


def check_forms(evaluation: Evaluation, architecture: Architecture, forms: Sequence[str]) -> None:
    """Check on one model that graphs of a space can be written and run.

    Args:
        evaluation: The evaluation of the search.
        architecture: An architecture; if it cannot be built, its trial reports that.
        forms: Forms in which the search measures its trials.

    Raises:
        ConfigError: A package is missing on this worker, or torch cannot translate the model.
    """
    for form in forms:
        try:
            with torch.random.fork_rng():
                measured_latency(evaluation, architecture, LatencySettings(1, 4, 1, 1e-3, form))
        except ConfigError as error:
            raise ConfigError(f"objectives: a metric is measured of {form}, but {error}; or of: torch") from error
