"""Which parameters of the encoder move when a learner adapts to one support set.

``all``: every one that is meta-trained; ``head``: none, only the learner's head; ``bitfit``: the biases (Ben Zaken et
al. 2022, "BitFit"); ``last-n``: those of the last n layers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from nas_meta.embedding import Encoder
from nas_meta.errors import TrialError
from nas_meta.learners.base import LearnerOptions


class AdaptationOptions(LearnerOptions):
    """Options of learners that move the encoder on a support set."""

    adapt: Literal["all", "head", "bitfit", "last-n"] = Field(
        "all", description="what moves on a support set beside the head: all, head (nothing else), bitfit or last-n"
    )
    adapt_layers: int = Field(1, ge=1, description="the n of last-n")


def adapted(encoder: Encoder, options: AdaptationOptions) -> dict[str, nn.Parameter]:
    """The encoder's parameters that move on a support set, by name.

    Raises:
        TrialError: ``last-n`` on a model without a list of layers.
    """
    trained = {id(p) for p in encoder.body_parameters(options.train_embeddings)}
    body = {name: p for name, p in encoder.named_parameters() if id(p) in trained}
    if options.adapt == "head":
        return {}
    if options.adapt == "bitfit":
        return {name: p for name, p in body.items() if name.endswith("bias")}
    if options.adapt == "last-n":
        moving = {id(p) for layer in layers(encoder)[-options.adapt_layers :] for p in layer.parameters()}
        return {name: p for name, p in body.items() if id(p) in moving}
    return body


def layers(encoder: Encoder) -> nn.ModuleList:
    """The model's stack of layers: the outermost list of modules."""
    for module in encoder.model.modules():
        if isinstance(module, nn.ModuleList) and len(module):
            return module
    raise TrialError("learner.adapt is last-n, but the model has no list of layers; expected all, head or bitfit")
