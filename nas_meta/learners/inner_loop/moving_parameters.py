"""Which parameters of the encoder move when a learner adapts to one support set.

``all``: every one that is meta-trained; ``head``: none, only the learner's head; ``bitfit``: the biases (Ben Zaken et
al. 2022, "BitFit"); ``last-n``: those of the last n layers; ``lora``, ``ia3`` and ``adapter``: those of small parts
that are put into every layer (:mod:`nas_meta.models.adapters`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from nas_meta.learners.base import Learner, LearnerOptions
from nas_meta.models import adapters
from nas_meta.models.encoder import Encoder


class AdaptationOptions(LearnerOptions):
    """Options of learners that move the encoder on a support set."""

    adapt: Literal["all", "head", "bitfit", "last-n", "lora", "ia3", "adapter"] = Field(
        "all",
        description="what moves on a support set: all, head, or with the head bitfit, last-n, lora, ia3, adapter",
    )
    adapt_layers: int = Field(1, ge=1, description="the n of last-n")
    adapt_rank: int = Field(8, ge=1, description="the rank of lora, the width of adapter")


class AdaptingLearner(Learner):
    """A learner that moves parameters of the encoder on a support set, those that ``learner.adapt`` names."""

    Options = AdaptationOptions

    def equip(self, model: nn.Module) -> None:
        if self.options.adapt in adapters.KINDS:
            # As their papers do: LoRA on queries and values, IA³ on keys, values and the feed-forward block.
            on = ("attention",) if self.options.adapt == "lora" else ("attention", "ffn")
            part = adapters.Insertion(self.options.adapt, self.options.adapt_rank, on)
            adapters.insert(model, dict.fromkeys(range(len(adapters.stack(model)[1])), part))

    def adapted(self, encoder: Encoder) -> dict[str, nn.Parameter]:
        return adapted(encoder, self.options)


def adapted(encoder: Encoder, options: AdaptationOptions) -> dict[str, nn.Parameter]:
    """The encoder's parameters that move on a support set, by name.

    Raises:
        TrialError: ``last-n`` on a model without a list of layers.
    """
    if options.adapt == "head":
        return {}
    trained = {id(p) for p in encoder.body_parameters(options.train_embeddings)}
    body = {name: p for name, p in encoder.named_parameters() if id(p) in trained}
    if options.adapt == "bitfit":
        return {name: p for name, p in body.items() if name.endswith("bias")}
    if options.adapt == "last-n":
        last = adapters.stack(encoder.model)[1][-options.adapt_layers :]
        moving = {id(p) for layer in last for p in layer.parameters()}
        return {name: p for name, p in body.items() if id(p) in moving}
    if options.adapt in adapters.KINDS:
        inserted = {f"model.{name}" for name in adapters.adapter_names(encoder.model)}
        return {name: p for name, p in body.items() if name in inserted}
    return body
