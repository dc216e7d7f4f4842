"""The comparison of embeddings that a trained learner makes, as plain data for ``onnx.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nas_meta.errors import ConfigError
from nas_meta.learners.closed_form import NAMES, in_closed_form
from nas_meta.learners.matching import Matching
from nas_meta.learners.protonet import ProtoNet
from nas_meta.outputs.onnx.comparison import ATTENTION, PROTOTYPES, RIDGE

if TYPE_CHECKING:
    from nas_meta.outputs.classifier.adaptation import ModelParts


def comparison_of(parts: ModelParts) -> dict[str, Any]:
    """Return how the learner of a model compares embeddings.

    Args:
        parts: The model.

    Returns:
        A comparison of :mod:`nas_meta.outputs.onnx.comparison`.

    Raises:
        ConfigError: The learner does not adapt in closed form on embeddings.
    """
    learner, encoder = parts.learner, parts.encoder
    if not in_closed_form(learner):
        detail = " with full_context" if isinstance(learner, Matching) else ""
        raise ConfigError(
            f"the learner '{parts.name}'{detail} adapts with torch, so its model cannot be exported as an ONNX graph; "
            f"expected {' or '.join([', '.join(NAMES[:-1]), NAMES[-1]])}, or an export without --format onnx"
        )
    if isinstance(learner, ProtoNet):
        form = learner.form(encoder)
        scale = learner.temperature(encoder) if form == "cosine" else learner.options.scale
        return {
            "kind": PROTOTYPES, "distance": form, "normalize": learner.options.normalize,
            "scale": float(torch.as_tensor(scale).detach()),
        }  # fmt: skip
    if isinstance(learner, Matching):
        return {"kind": ATTENTION, "scale": learner.options.scale}
    learned = encoder.learned
    return {
        "kind": RIDGE, "ridge": float(learned.log_ridge.detach().exp()), "scale": float(learned.scale.detach()),
        "bias": float(learned.bias.detach()),
    }  # fmt: skip
