"""Zero-cost scores: how good a model may become, told from its initial weights without training."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas_meta.scores.sample import Score

# By name, the module of this package that defines it as a function of the same name.
SCORES = {
    "parameters": "parameters",
    "untrained": "untrained",
    "synflow": "synflow",
    "gradient_norm": "gradients",
    "snip": "gradients",
    "attention_confidence": "attention",
    "jacobian_covariance": "jacobian",
}


def load(name: str) -> Score:
    """The score of that name (a key of :data:`SCORES`); the more, the better the model is expected to become."""
    return getattr(import_module(f"{__name__}.{SCORES[name]}"), name)
