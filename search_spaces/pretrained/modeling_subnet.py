"""Models of transformers whose layers differ in size: sub-networks that nas-meta exports. Needs torch and transformers.

``nas_meta_layers`` in the config lists what differs from a plain model of the config, layer by layer:

- ``layer``: Index of the layer in a plain model that it is made from.
- ``heads``, ``neurons``: Its sizes, for readers.
- ``shapes``: Shapes of the parameters that are smaller or larger than in a plain model, by name.
- ``sizes``: Attributes of modules that must agree with these shapes, by path.
- ``head_bias``: Attention module, name of its argument with an entry for each head of a plain model, and the heads
  whose entries the layer uses.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Subnet:
    """Mixin for a model class of transformers that gives each layer the sizes in ``config.nas_meta_layers``.

    Args:
        config: Config of the model, with ``nas_meta_layers`` and ``nas_meta_stack``, the path of the list of layers.
        *arguments: Passed to the model class.
        **options: Passed to the model class.
    """

    def __init__(self, config: Any, *arguments: Any, **options: Any):
        with plain_depth(config):
            super().__init__(config, *arguments, **options)
        resize(self.base_model, config.nas_meta_stack, config.nas_meta_layers)  # type: ignore[attr-defined]


@contextmanager
def plain_depth(config: Any) -> Iterator[None]:
    """Give a config the depth of the plain model that the layers are made from, inside a ``with`` block.

    Args:
        config: Config with ``nas_meta_layers``; changed in place, and restored afterwards.
    """
    places = [layer["layer"] for layer in config.nas_meta_layers]
    types, depth = getattr(config, "layer_types", None), config.num_hidden_layers
    config.num_hidden_layers = places[-1] + 1
    if types is not None:
        config.layer_types = [types[places.index(i)] if i in places else types[0] for i in range(places[-1] + 1)]
    try:
        yield
    finally:
        config.num_hidden_layers = depth
        if types is not None:
            config.layer_types = types


def resize(model: nn.Module, stack: str, layers: Sequence[dict[str, Any]]) -> None:
    """Keep some layers of a plain model and give them their sizes, in place. Resized weights are not initialised.

    Args:
        model: A plain base model.
        stack: Path of its list of layers.
        layers: What differs in each kept layer, as in ``nas_meta_layers``.
    """
    parent, _, name = stack.rpartition(".")
    plain = model.get_submodule(stack)
    kept = nn.ModuleList([plain[entry["layer"]] for entry in layers])
    for layer, entry in zip(kept, layers, strict=True):
        for path, shape in entry.get("shapes", {}).items():
            module, _, parameter = path.rpartition(".")
            old = getattr(layer.get_submodule(module), parameter)
            new = nn.Parameter(torch.empty(shape, dtype=old.dtype, device=old.device))
            setattr(layer.get_submodule(module), parameter, new)
        for path, size in entry.get("sizes", {}).items():
            module, _, attribute = path.rpartition(".")
            setattr(layer.get_submodule(module), attribute, size)
        if "head_bias" in entry:
            module, argument, heads = entry["head_bias"]
            select_bias(layer.get_submodule(module), argument, heads)
    setattr(model.get_submodule(parent), name, kept)


def select_bias(attention: nn.Module, argument: str, heads: Sequence[int]) -> None:
    """Let an attention module use only some heads of a bias that all layers share.

    Args:
        attention: The attention module.
        argument: Name of the argument of its ``forward`` with the bias, ``[B, heads, T, T]``.
        heads: Indices of the heads of the bias that belong to the heads of the module.
    """
    attention.nas_meta_bias = argument, list(heads)
    if not getattr(attention, "nas_meta_hooked", False):
        attention.register_forward_pre_hook(_selected, with_kwargs=True)
        attention.nas_meta_hooked = True


def _selected(attention: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    """Forward pre-hook that selects the heads of the bias."""
    argument, heads = attention.nas_meta_bias
    bound = inspect.signature(attention.forward).bind_partial(*arguments, **named)
    if bound.arguments.get(argument) is not None:
        bound.arguments[argument] = bound.arguments[argument][:, heads]
    return bound.args, bound.kwargs
