"""The parameters of the encoder that the inner loop trains when a learner adapts to one support set.

``all``: every parameter that is meta-trained; ``head``: none, only the learner's head; ``bitfit``: the biases (Ben
Zaken et al. 2022, "BitFit"); ``last-n``: the parameters of the last n layers; ``lora``, ``ia3`` and ``adapter``: the
parameters of small modules that are inserted into every layer (:mod:`nas_meta.models.adapters`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from nas_meta.learners.base import Learner, LearnerOptions
from nas_meta.models import adapters
from nas_meta.models.encoder import Encoder


class AdaptationOptions(LearnerOptions):
    """Options of learners that can train the encoder on a support set."""

    adapt: Literal["all", "head", "bitfit", "last-n", "lora", "ia3", "adapter"] = Field(
        "all",
        description="what is trained on a support set: only the head, or also all parameters, biases (bitfit), "
        "the last layers (last-n) or inserted modules (lora, ia3, adapter)",
    )
    adapt_layers: int = Field(1, ge=1, description="number of last layers that last-n adapts")
    adapt_rank: int = Field(8, ge=1, description="rank of lora, or width of adapter")


class AdaptingLearner(Learner):
    """A learner whose inner loop trains the encoder's parameters that ``learner.adapt`` selects."""

    Options = AdaptationOptions

    def equip(self, model: nn.Module) -> None:
        if self.options.adapt in adapters.KINDS:
            # As in the papers: LoRA adapts queries and values; IA³ keys, values and the feed-forward block.
            on = ("attention",) if self.options.adapt == "lora" else ("attention", "ffn")
            part = adapters.Insertion(self.options.adapt, self.options.adapt_rank, on)
            adapters.insert(model, dict.fromkeys(range(len(adapters.stack(model)[1])), part))

    def adapted(self, encoder: Encoder) -> dict[str, nn.Parameter]:
        return adapted(encoder, self.options)


def adapted(encoder: Encoder, options: AdaptationOptions) -> dict[str, nn.Parameter]:
    """Return the encoder's parameters that the inner loop trains, by name.

    Args:
        encoder: The encoder, after :meth:`Learner.equip`.
        options: The learner's options, of which ``adapt`` selects the parameters.

    Raises:
        TrialError: ``adapt`` is ``last-n`` and the model has no list of layers.
    """
    if options.adapt == "head":
        return {}
    trained = {id(p) for p in encoder.body_parameters(options.train_embeddings)}
    body = {name: p for name, p in encoder.named_parameters() if id(p) in trained}
    if options.adapt == "bitfit":
        return {name: p for name, p in body.items() if name.endswith("bias")}
    if options.adapt == "last-n":
        last = adapters.stack(encoder.model)[1][-options.adapt_layers :]
        chosen = {id(p) for layer in last for p in layer.parameters()}
        return {name: p for name, p in body.items() if id(p) in chosen}
    if options.adapt in adapters.KINDS:
        inserted = {f"model.{name}" for name in adapters.adapter_names(encoder.model)}
        return {name: p for name, p in body.items() if name in inserted}
    return body
