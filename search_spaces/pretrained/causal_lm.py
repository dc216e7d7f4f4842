"""Causal language models as models of texts: their token states are pooled, their head stays for pre-training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class CausalStates(PreTrainedModel):
    """A causal language model of transformers that gives its token states in the place of logits.

    ``lm`` is the model as it was, to be saved or pre-trained; ``get_output_embeddings()`` turns states into logits, and
    is the table of tokens itself where the two are tied. A token sees none behind it, in packed texts too.

    Args:
        lm: such as a ``LlamaForCausalLM``; not copied.
    """

    config_class = PretrainedConfig
    base_model_prefix = "lm"
    _supports_sdpa = True

    def __init__(self, lm: PreTrainedModel):
        super().__init__(lm.config)
        self.lm = lm

    @property
    def base_model(self) -> nn.Module:
        """What is below the head."""
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
        """Token states ``[batch, tokens, hidden]`` as ``last_hidden_state``.

        Args:
            attention_mask: ``[batch, tokens]``, 1 at tokens; or ``[batch, 1, tokens, tokens]`` for texts that are
                packed, 0 where a token is seen unless it is behind, else the lowest number.
            position_ids: ``[batch, tokens]``; by default 0, 1, ...
        """
        if attention_mask is not None and attention_mask.ndim == 4:
            # transformers takes such a mask as it is.
            behind = torch.ones(attention_mask.shape[-2:], dtype=torch.bool, device=attention_mask.device).triu(1)
            attention_mask = attention_mask.masked_fill(behind, torch.finfo(torch.bfloat16).min)
        states = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )
        return BaseModelOutput(last_hidden_state=states.last_hidden_state)
