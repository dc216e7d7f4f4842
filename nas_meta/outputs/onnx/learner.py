"""The comparison of embeddings that a trained learner makes, as plain data for ``onnx.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nas_meta.errors import ConfigError
from nas_meta.learners.matching import Matching
from nas_meta.learners.protonet import ProtoNet
from nas_meta.learners.ridge import Ridge
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
    kind = type(learner)  # a subclass of a plugin may compare in another way
    if kind is ProtoNet:
        form = learner.form(encoder)
        scale = learner.temperature(encoder) if form == "cosine" else learner.options.scale
        return {
            "kind": PROTOTYPES, "distance": form, "normalize": learner.options.normalize,
            "scale": float(torch.as_tensor(scale).detach()),
        }  # fmt: skip
    if kind is Matching and not learner.options.full_context:
        return {"kind": ATTENTION, "scale": learner.options.scale}
    if kind is Ridge:
        learned = encoder.learned
        return {
            "kind": RIDGE, "ridge": float(learned.log_ridge.detach().exp()), "scale": float(learned.scale.detach()),
            "bias": float(learned.bias.detach()),
        }  # fmt: skip
    detail = " with full_context" if kind is Matching else ""
    raise ConfigError(
        f"the learner '{parts.name}'{detail} adapts with torch, so its model cannot be exported as an ONNX graph; "
        "expected protonet, ridge or matching, or an export without --format onnx"
    )
