"""Texts, images, or images with texts: what a search space takes, what a task source gives, and whether that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_meta.errors import ConfigError, nearest
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import space_name
from nas_meta.tasks.examples import IMAGE, MODALITIES, TEXT, size

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def example_inputs(
    space: SearchSpace, examples: int, tokens: int, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Inputs as the models of a space take them, for measuring: of so many tokens, and grey."""
    import torch

    from nas_meta.models.profiling import text_inputs

    inputs = {} if space.modality == IMAGE else text_inputs(examples, tokens)
    if space.modality != TEXT:
        inputs["pixel_values"] = torch.zeros(examples, *space.image_shape)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def describe_inputs(space: SearchSpace, examples: int, tokens: int) -> str:
    """Such inputs in words: ``2 texts of 4 tokens``, ``an image of 1×8×8``."""
    several = examples > 1
    text = f"{examples} texts of {tokens} tokens" if several else f"a text of {tokens} tokens"
    if space.modality == TEXT:
        return text
    image = f"{examples} images of {size(space.image_shape)}" if several else f"an image of {size(space.image_shape)}"
    return image if space.modality == IMAGE else f"{image} with {text.removeprefix(f'{examples} ')}"


def check_modality(space: SearchSpace) -> None:
    """Raises ConfigError where a space does not say well what its models take."""
    if space.modality not in MODALITIES:
        raise ConfigError(
            f"the search space {space_name(space)} takes '{space.modality}'; {nearest(str(space.modality), MODALITIES)}"
        )
    shape = space.image_shape
    sizes = isinstance(shape, (tuple, list)) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)
    if space.modality != TEXT and not sizes:
        raise ConfigError(
            f"the search space {space_name(space)} takes images, but its image_shape is {shape!r}; expected channels, "
            "height and width"
        )
