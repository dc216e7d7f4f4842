"""Early stopping: ends meta-training when interim validations stop improving, and restores the best weights."""

from __future__ import annotations

import torch

from nas_meta.models.encoder import Encoder


class EarlyStopping:
    """Keeps the weights of the best interim validation.

    Args:
        patience: Number of validations without improvement after which training stops; 0 disables early stopping.
    """

    def __init__(self, patience: int):
        self.patience, self.waited = patience, 0
        self.accuracy = -1.0
        self.state: dict[str, torch.Tensor] = {}

    def see(self, accuracy: float, encoder: Encoder) -> None:
        """Record an interim validation, and the weights if they are the best so far.

        Args:
            accuracy: Its accuracy, from 0 to 1.
            encoder: The encoder.
        """
        if not self.patience:
            return
        self.waited += 1
        if accuracy > self.accuracy:
            self.waited, self.accuracy = 0, accuracy
            self.state = {name: t.detach().cpu().clone() for name, t in encoder.state_dict().items()}

    @property
    def over(self) -> bool:
        """Whether training should stop: ``patience`` validations in a row were not better than the best."""
        return self.patience > 0 and self.waited >= self.patience

    def restore(self, encoder: Encoder) -> None:
        """Restore the best weights, unless the last validation was the best.

        Args:
            encoder: The encoder, changed in place.
        """
        if self.waited:
            # A learner may have removed a head that it needs for training only.
            known = encoder.state_dict()
            encoder.load_state_dict({name: t for name, t in self.state.items() if name in known})
