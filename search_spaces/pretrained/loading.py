"""Pretrained encoders and causal language models from a folder, a hub name or what an extra brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import model_path

if TYPE_CHECKING:
    from torch import nn


def load_pretrained(name: str) -> nn.Module:
    """The encoder ``space.model`` names.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoModel

    return _loaded(name, AutoModel.from_pretrained, weights_only=True).eval()


def load_pretrained_decoder(name: str) -> nn.Module:
    """The causal language model ``space.model`` names, giving token states.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    from search_spaces.pretrained.causal_lm import CausalStates

    lm = _loaded(name, AutoModelForCausalLM.from_pretrained, weights_only=True, dtype="float32")
    return CausalStates(lm).eval()


def pretrained_config(name: str) -> Any:
    """The config of the model ``space.model`` names.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoConfig

    return _loaded(name, AutoConfig.from_pretrained)


def _loaded(name: str, load: Callable[..., Any], **options: Any) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        # False, not left out: transformers would ask on the terminal whether to run a folder's own code.
        return load(model_path(name), trust_remote_code=False, **options)
    except ConfigError:
        raise
    except Exception as error:  # a folder may hold anything, and so may what the libraries below raise
        raise ConfigError(f"space.model '{name}' cannot be loaded: {error}") from error
