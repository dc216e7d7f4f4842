"""Inputs of the models of a search space, by its modality: texts, images, or images with texts."""

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
    """Return inputs for the models of a search space, for checks and profiling: texts of ones and grey images.

    Args:
        space: Search space; its modality and image shape are used.
        examples: Batch size B.
        tokens: Tokens T of each text.
        device: Device of the tensors.

    Returns:
        ``input_ids`` and ``attention_mask`` ``[B, T]`` for texts, ``pixel_values`` ``[B, channels, height, width]`` for
        images, and all three for images with texts.
    """
    import torch

    from nas_meta.models.profiling import text_inputs

    inputs = {} if space.modality == IMAGE else text_inputs(examples, tokens)
    if space.modality != TEXT:
        inputs["pixel_values"] = torch.zeros(examples, *space.image_shape)
    return {name: tensor.to(device) for name, tensor in inputs.items()}


def describe_inputs(space: SearchSpace, examples: int, tokens: int) -> str:
    """Describe the inputs of :func:`example_inputs` in words, for error messages.

    Args:
        space: Search space; its modality and image shape are used.
        examples: Batch size.
        tokens: Tokens of each text.

    Returns:
        A phrase such as ``2 texts of 4 tokens`` or ``an image of 1×8×8``.
    """
    several = examples > 1
    text = f"{examples} texts of {tokens} tokens" if several else f"a text of {tokens} tokens"
    if space.modality == TEXT:
        return text
    image = f"{examples} images of {size(space.image_shape)}" if several else f"an image of {size(space.image_shape)}"
    return image if space.modality == IMAGE else f"{image} with {text.removeprefix(f'{examples} ')}"


def check_modality(space: SearchSpace) -> None:
    """Check the modality and the image shape of a search space.

    Args:
        space: Search space of a plugin.

    Raises:
        ConfigError: If the modality is unknown, or if a space of images has no image shape of three positive numbers.
    """
    if space.modality not in MODALITIES:
        raise ConfigError(
            f"the search space {space_name(space)} has the modality '{space.modality}'; "
            f"{nearest(str(space.modality), MODALITIES)}"
        )
    shape = space.image_shape
    sizes = isinstance(shape, (tuple, list)) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)
    if space.modality != TEXT and not sizes:
        raise ConfigError(
            f"the search space {space_name(space)} takes images, but its image_shape is {shape!r}; expected "
            "channels, height and width as positive integers"
        )
