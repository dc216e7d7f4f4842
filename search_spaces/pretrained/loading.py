"""Loading of pretrained models from a folder, the Hugging Face hub, or a packaged model such as starter:minilm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from nas_meta.errors import ConfigError
from nas_meta.tasks.packaged_models import model_path, refuse_adapter

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

LAYERS = "nas_meta_layers"
"""Config key of a model whose layers differ in size, as :mod:`search_spaces.pretrained.subnet_folder` writes it."""


def load_pretrained(name: str) -> nn.Module:
    """Load a pretrained encoder.

    Args:
        name: A folder, a hub name, or the name of a packaged model.

    Returns:
        The encoder in evaluation mode, in float32 whatever the precision of the file: half precision is too coarse for
        small updates of weights.

    Raises:
        ConfigError: The model cannot be loaded.
    """
    from transformers import AutoModel

    return _load_model(name, AutoModel).eval()


def load_pretrained_decoder(name: str) -> nn.Module:
    """Load a pretrained causal language model as a model that returns token states.

    Args:
        name: A folder, a hub name, or the name of a packaged model.

    Returns:
        A ``CausalStates`` in evaluation mode, in float32.

    Raises:
        ConfigError: The model cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    from search_spaces.pretrained.causal_lm import CausalStates

    return CausalStates(_load_model(name, AutoModelForCausalLM)).eval()


def pretrained_config(name: str) -> Any:
    """Load the config of a pretrained model.

    Args:
        name: A folder, a hub name, or the name of a packaged model.

    Returns:
        The transformers config.

    Raises:
        ConfigError: The config cannot be loaded.
    """
    from transformers import AutoConfig

    return _load(name, AutoConfig.from_pretrained, trust_remote_code=False)


def model_from_arrays(config: Any, weights: Mapping[str, np.ndarray]) -> nn.Module:
    """Rebuild a pretrained encoder on a worker, which may not have its files.

    Args:
        config: The transformers config of the encoder.
        weights: Its state, by name.

    Returns:
        The encoder.
    """
    import torch
    from transformers import AutoModel

    from search_spaces.pretrained.subnet_folder import plain_instance, resized_class

    if hasattr(config, LAYERS):
        model = plain_instance(resized_class(config, AutoModel)(config))
    else:
        model = AutoModel.from_config(config)
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return model


def _load_model(name: str, auto: Any) -> Any:
    """Load a model in float32 and refuse weights that are not finite."""
    from nas_meta.models.token_checks import check_architecture, check_weights
    from search_spaces.pretrained.subnet_folder import load_layers

    model = _load(name, partial(load_layers, auto=auto), dtype="float32")
    check_architecture(model, f"space.model '{name}'")
    check_weights(model, f"space.model '{name}'")
    return model


def _load(name: str, load: Callable[..., Any], **options: Any) -> Any:
    """Call a loading function of transformers and turn its exceptions into a ConfigError."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    refuse_adapter(name, "space.model")
    try:
        return load(model_path(name), **options)
    except ConfigError:
        raise
    except Exception as error:  # a corrupt folder can make the libraries raise anything
        raise ConfigError(f"space.model '{name}' cannot be loaded: {error}") from error
