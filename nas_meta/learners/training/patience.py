"""Early stopping by interim validations: back to the best weights when the patience is over."""

from __future__ import annotations

import torch

from nas_meta.models.encoder import Encoder


class EarlyStopping:
    """The weights of the best interim validation, for early stopping; nothing with a patience of 0."""

    def __init__(self, patience: int):
        self.patience, self.waited = patience, 0
        self.accuracy = -1.0
        self.state: dict[str, torch.Tensor] = {}

    def see(self, accuracy: float, encoder: Encoder) -> None:
        """An interim validation."""
        if not self.patience:
            return
        self.waited += 1
        if accuracy > self.accuracy:
            self.waited, self.accuracy = 0, accuracy
            self.state = {name: t.detach().cpu().clone() for name, t in encoder.state_dict().items()}

    @property
    def over(self) -> bool:
        """Whether as many validations as the patience were no better."""
        return self.patience > 0 and self.waited >= self.patience

    def restore(self, encoder: Encoder) -> None:
        """Goes back to the best, if it was not the last."""
        if self.waited:
            # A head that served training alone is gone by now.
            known = encoder.state_dict()
            encoder.load_state_dict({name: t for name, t in self.state.items() if name in known})
