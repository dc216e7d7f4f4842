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
        return AutoModel.from_pretrained(model_path(name)).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(f"space.model '{name}' cannot be loaded: {str(error).splitlines()[0]}") from error
