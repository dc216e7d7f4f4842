"""What the supernets of pretrained encoders and decoders share: an elastic model is called like the model inside."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nas_meta import Supernet


class ElasticModel(Supernet):
    """A pretrained model whose layers have been replaced by elastic ones.

    Args:
        model: The model; not copied.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    @property
    def config(self) -> Any:
        """The transformers config of the model."""
        return self.model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None = None) -> Any:
        """Encode a batch of texts with the selected sub-network.

        Args:
            input_ids: Token ids ``[B, T]``.
            attention_mask: ``[B, T]``, 1 at tokens and 0 at padding; ``[B, 1, T, T]`` for packed texts.
            position_ids: ``[B, T]``, for packed texts.

        Returns:
            Output with token states ``[B, T, H]`` as ``last_hidden_state``.
        """
        return self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)
