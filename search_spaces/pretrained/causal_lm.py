"""Causal language models as text encoders: token states instead of logits, with the output layer for pre-training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class CausalStates(PreTrainedModel):
    """Wrapper for a causal language model of transformers that returns token states instead of logits.

    The attribute ``lm`` is the wrapped model, which can be saved or pre-trained. ``get_output_embeddings()`` returns
    the layer that turns states into logits; if the model ties its embeddings, that layer shares their weights. A token
    attends only to itself and earlier tokens, also if texts are packed.

    Args:
        lm: The language model, such as a ``LlamaForCausalLM``; it is not copied.
    """

    config_class = PretrainedConfig
    base_model_prefix = "lm"
    _supports_sdpa = True

    def __init__(self, lm: PreTrainedModel):
        super().__init__(lm.config)
        self.lm = lm

    @property
    def base_model(self) -> nn.Module:
        """The language model without its output layer."""
        return self.lm.base_model

    def get_input_embeddings(self) -> nn.Module:
        return self.lm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.lm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm.get_output_embeddings()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> BaseModelOutput:
        """Encode a batch of texts.

        Args:
            input_ids: Token ids ``[B, T]``.
            attention_mask: ``[B, T]``, 1 at tokens and 0 at padding; no padding by default. Packed texts take a mask
                ``[B, 1, T, T]`` instead, 0 where a token may be attended to and a large negative number elsewhere;
                later tokens are masked here.
            position_ids: ``[B, T]``; 0, 1, ... by default.

        Returns:
            Output with token states ``[B, T, hidden]`` as ``last_hidden_state``.
        """
        if attention_mask is not None and attention_mask.ndim == 4:
            # transformers uses a mask of four dimensions as it is, so later tokens must be masked here.
            later = torch.ones(attention_mask.shape[-2:], dtype=torch.bool, device=attention_mask.device).triu(1)
            attention_mask = attention_mask.masked_fill(later, torch.finfo(torch.bfloat16).min)
        states = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )
        return BaseModelOutput(last_hidden_state=states.last_hidden_state)
