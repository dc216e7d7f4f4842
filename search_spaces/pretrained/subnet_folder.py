"""Export of models whose layers differ in size, physically small, and loading of what was exported.

A model that a config of transformers can describe is saved as a plain model. Any other is saved with the sizes of its
layers in its config and with one file, ``modeling_subnet.py``, that loads it with torch and transformers alone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_meta.errors import ConfigError
from nas_meta.models.families import Family, family_of
from search_spaces.pretrained import modeling_subnet
from search_spaces.pretrained.loading import LAYERS
from search_spaces.pretrained.modeling_subnet import Subnet, plain_depth
from search_spaces.slicing import bias_heads, parts_of, replace_layers, slice_layer, without_padding

STACK = "nas_meta_stack"
PADDED = ("nas_meta_widths", "decoder_widths")  # of models that earlier versions padded with zeros
CODE = "modeling_subnet.py"
FOOTER = '''

from transformers import {classes}  # noqa: E402


class SubnetModel(Subnet, {base}):
    """The model that returns hidden states."""
{head}

def load_model(folder: str) -> SubnetModel:
    """Load the model of a folder.

    Args:
        folder: Folder with ``config.json`` and the weights.

    Returns:
        The model in evaluation mode.
    """
    return SubnetModel.from_pretrained(folder)
'''
HEAD_CLASS = '''

class SubnetForCausalLM(Subnet, {lm}):
    """The model with its language-model head."""
'''


def save_subnet(model: nn.Module, folder: str | Path, stack: str | None = None) -> None:
    """Save a model with layers of any size as a Hugging Face folder with the same number of parameters.

    Args:
        model: A sliced or widened encoder of transformers, or a causal language model wrapped in ``CausalStates``; its
            layers may be reordered inside, which changes no output.
        folder: Destination folder.
        stack: Path of the list of layers in the base model; by default that of its family.
    """
    lm: Any = getattr(model, "lm", model)
    family = family_of(lm.config)
    if family is not None and family.head_bias is not None:
        model = _with_sorted_heads(model, family)
        lm = getattr(model, "lm", model)
    path = stack or (family.layers if family is not None else None)
    if path is None:
        raise ConfigError(
            f"a {type(lm).__name__} with layers of different sizes cannot be saved; expected another model"
        )
    own = lm.config
    config = copy.deepcopy(own)
    for name in (LAYERS, STACK, "auto_map", *PADDED):
        if hasattr(config, name):
            delattr(config, name)
    uniform = _uniform_config(lm, config, path, family)
    try:
        lm.config = uniform or _config_with_layers(lm, config, path, family)
        lm.save_pretrained(folder)
    finally:
        lm.config = own
    if uniform is None:
        (Path(folder) / CODE).write_text(_code(lm), encoding="utf-8")


def load_subnet(folder: str | Path, causal: bool = False) -> nn.Module:
    """Load a model in its true size, whether it is plain, has layers of different sizes, or is padded with zeros.

    Args:
        folder: A folder of :func:`save_subnet`, of an earlier version, or of any model. No code in it is run.
        causal: Whether to load a causal language model.

    Returns:
        The model in float32 and evaluation mode; a causal language model as ``CausalStates``.

    Raises:
        OSError: The folder cannot be read.
        ValueError: transformers does not know the model.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    from search_spaces.pretrained.causal_lm import CausalStates

    lm = load_layers(folder, AutoModelForCausalLM if causal else AutoModel, dtype="float32")
    model = CausalStates(lm).eval() if causal else lm.eval()
    padded = next((sizes for name in PADDED if (sizes := getattr(lm.config, name, None))), None)
    return model if padded is None else without_padding(model, padded)


def load_layers(folder: str | Path, auto: Any, **options: Any) -> Any:
    """Load a folder like an auto class, and layers of different sizes by the code of this installation.

    Args:
        folder: Folder of a model.
        auto: ``AutoModel`` or ``AutoModelForCausalLM``.
        **options: Passed to ``from_pretrained``.

    Returns:
        The model, an instance of a plain class of transformers.
    """
    from transformers import AutoConfig

    # If trust_remote_code were left out, transformers would ask on the terminal whether to run the folder's code.
    if not has_layers(folder):
        return auto.from_pretrained(folder, trust_remote_code=False, weights_only=True, **options)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    resized = resized_class(config, auto)
    return plain_instance(resized.from_pretrained(folder, config=config, weights_only=True, **options))


def resized_class(config: Any, auto: Any) -> Any:
    """Return the class of a model whose layers differ in size.

    Args:
        config: Config with ``nas_meta_layers``.
        auto: ``AutoModel`` or ``AutoModelForCausalLM``.

    Returns:
        A subclass of the model class of transformers.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

    plain = (MODEL_FOR_CAUSAL_LM_MAPPING if "Causal" in auto.__name__ else MODEL_MAPPING)[type(config)]
    return type(plain.__name__, (Subnet, plain), {"__module__": plain.__module__})


def plain_instance(model: Any) -> Any:
    """Make a model of :func:`resized_class` an instance of its plain class, which pickle finds, in place.

    Args:
        model: The model, whose layers have their sizes.

    Returns:
        The same model.
    """
    model.__class__ = type(model).__bases__[1]
    return model


def has_layers(folder: str | Path) -> bool:
    """Return whether the layers of a folder's model differ in size.

    Args:
        folder: Folder of a model, or a name on the Hugging Face hub, whose config is not read.
    """
    file = Path(folder) / "config.json"
    try:
        return file.is_file() and LAYERS in json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        return False  # transformers reports what is wrong with it


def _with_sorted_heads(model: nn.Module, family: Family) -> nn.Module:
    """Return a model whose layers have their heads in the order of the shared bias, as plain layers have."""
    body = model.base_model.get_submodule(family.layers)
    ordered = []
    for layer in body:
        order = np.argsort(bias_heads(layer, family))
        ordered.append(slice_layer(layer, family, order[:, None], np.arange(parts_of(layer, family).neurons)))
    model = copy.deepcopy(model, {id(layer): layer for layer in body})
    replace_layers(model, ordered, range(len(ordered)))
    return model


def _plain(lm: Any, config: Any) -> Any:
    """Return a plain model of a config without storage."""
    with torch.device("meta"):
        return type(lm)(copy.deepcopy(config))


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _uniform_config(lm: Any, config: Any, path: str, family: Family | None) -> Any:
    """Return the config of a plain model with the shapes of a model; None if there is none."""
    config = copy.deepcopy(config)
    layers = lm.base_model.get_submodule(path)
    if family is not None:
        parts = [parts_of(layer, family) for layer in layers]
        if len({(p.groups, p.group_heads, p.neurons) for p in parts}) > 1:
            return None
        if family.head_bias and any(bias_heads(layer, family) != list(range(parts[0].heads)) for layer in layers):
            return None
        setattr(config, family.neurons_key, parts[0].neurons)
        if family.head_keys:
            config.head_dim = parts[0].head_size
            config.num_attention_heads, config.num_key_value_heads = parts[0].heads, parts[0].groups
    try:
        config = type(config).from_dict(config.to_dict())  # checks what its keys must meet together
        return config if _shapes(_plain(lm, config)) == _shapes(lm) else None
    except Exception:  # a model of another size may raise anything
        return None


def _config_with_layers(lm: Any, config: Any, path: str, family: Family | None) -> Any:
    """Return a config that lists how the layers differ from those of a plain model.

    In some families the first layer lacks a module, so a sub-network without it starts from the second plain layer.
    """
    layers = list(lm.base_model.get_submodule(path))
    for first in (0, 1):
        entries: list[dict[str, Any]] = [{"layer": first + i} for i in range(len(layers))]
        setattr(config, LAYERS, entries)
        with plain_depth(config):
            plain = list(_plain(lm, config).base_model.get_submodule(path))[first:]
        if all(_shapes(a).keys() == _shapes(b).keys() for a, b in zip(layers, plain, strict=True)):
            break
    else:
        raise ConfigError(f"the layers of {type(lm).__name__} differ from those of its family; they cannot be saved")
    for entry, layer, whole in zip(entries, layers, plain, strict=True):
        if family is not None:
            parts = parts_of(layer, family)
            entry |= {"heads": parts.heads, "neurons": parts.neurons}
        before, shapes = _shapes(whole), _shapes(layer)
        entry["shapes"] = {name: list(shape) for name, shape in shapes.items() if shape != before[name]}
        entry["sizes"] = _changed_sizes(layer, whole)
        if family is not None and family.head_bias and bias_heads(layer, family) != bias_heads(whole, family):
            entry["head_bias"] = [family.attention, family.head_bias, bias_heads(layer, family)]
    setattr(config, STACK, path)
    config.auto_map = {"AutoModel": f"{Path(CODE).stem}.SubnetModel"}
    if lm.base_model is not lm:
        config.auto_map["AutoModelForCausalLM"] = f"{Path(CODE).stem}.SubnetForCausalLM"
    return config


def _changed_sizes(layer: nn.Module, plain: nn.Module) -> dict[str, int]:
    """Return the whole numbers that the modules of a layer have as attributes and that differ from a plain layer."""
    changed = {}
    for name, module in plain.named_modules():
        own = vars(layer.get_submodule(name))
        for key, value in vars(module).items():
            if type(value) is int and type(own.get(key)) is int and own[key] != value:
                changed[f"{name}.{key}" if name else key] = own[key]
    return changed


def _code(lm: Any) -> str:
    """Return the code that loads a model: this installation's, and the classes of the model."""
    base, whole = type(lm.base_model).__name__, type(lm).__name__
    names: Sequence[str] = sorted({base, whole})
    head = HEAD_CLASS.format(lm=whole) if base != whole else ""
    source = Path(modeling_subnet.__file__).read_text(encoding="utf-8")
    return source + FOOTER.format(classes=", ".join(names), base=base, head=head)
