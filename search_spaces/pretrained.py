"""Pretrained encoders from a folder, a hub name or the starter extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_meta.errors import ConfigError
from nas_meta.tasks.starter import model_path

if TYPE_CHECKING:
    from torch import nn


def load_pretrained(name: str) -> nn.Module:
    """The encoder ``space.model`` names.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        # False, not left out: transformers would ask on the terminal whether to run a folder's own code.
        return AutoModel.from_pretrained(model_path(name), trust_remote_code=False, weights_only=True).eval()
    except ConfigError:
        raise
    except Exception as error:  # a folder may hold anything, and so may what the libraries below raise
        raise ConfigError(f"space.model '{name}' cannot be loaded: {error}") from error
