"""Checks of a built model before it is trained: its type, its outputs, and whether the pooling suits it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_meta.core.guard import type_name
from nas_meta.errors import TrialError
from nas_meta.models.causality import is_causal
from nas_meta.models.evaluating import inference
from nas_meta.models.inputs import describe_inputs, example_inputs
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import space_name
from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT, TEXT

if TYPE_CHECKING:
    from nas_meta.models.encoder import Encoder


def check_model(model: Any, space: SearchSpace) -> None:
    """Check that a search space built a model that fits the space's modality.

    The model runs once, in evaluation mode, on two examples; its training mode is restored.

    Args:
        model: What ``space.build`` returned.
        space: The search space, which knows the inputs.

    Raises:
        TrialError: If it is not a torch module with parameters, or if its output is not floating point of the expected
            shape: token states ``[2, tokens, width]`` or embeddings ``[2, width]``.
    """
    built = f"build() of {space_name(space)} returned "
    if not isinstance(model, nn.Module):
        raise TrialError(f"{built}{type_name(model)}; expected a torch module")
    if next(model.parameters(), None) is None:
        raise TrialError(f"{built}a {type(model).__name__} without parameters; expected at least one")
    inputs = example_inputs(space, 2, 4, next(model.parameters()).device)
    with inference(model):
        output = model(**inputs)
    states = output if isinstance(output, Tensor) else getattr(output, "last_hidden_state", None)
    if not isinstance(states, Tensor):
        raise TrialError(f"{built}a model whose output is {type_name(output)}; expected a tensor, or last_hidden_state")
    shape = tuple(states.shape)
    # The number of a vision transformer's states is free: one per patch, and often one more for [CLS].
    tokens = {TEXT: 4, IMAGE: shape[1] if len(shape) == 3 else 1}
    expected = [[2, tokens[space.modality]], [2]] if space.modality != IMAGE_TEXT else [[2]]
    if not states.is_floating_point() or list(shape[:-1]) not in expected or not all(shape):
        words = {TEXT: "[2, 4, width] or [2, width]", IMAGE: "[2, patches, width] or [2, width]"}
        raise TrialError(
            f"{built}a model whose output is {states.dtype} {list(shape)} for {describe_inputs(space, 2, 4)}; "
            f"expected floating point {words.get(space.modality, '[2, width]')}"
        )


def check_pooling(encoder: Encoder) -> None:
    """Check that ``cls`` is not the pooling of a causal model, whose first state sees nothing of the text.

    A model whose tokens are independent of each other passes, because no pooling would be better.

    Args:
        encoder: Encoder of texts; encoders of images pass.

    Raises:
        TrialError: If the pooling is ``cls``, the first state ignores the second token, and the second state depends
            on the first token.
    """
    if encoder.pooling != "cls" or "pixel_values" in encoder.example:
        return
    device = next(encoder.parameters()).device
    ids = torch.tensor([[1, 2], [4, 2]], device=device)
    with inference(encoder):
        states = encoder._states(input_ids=ids, attention_mask=torch.ones_like(ids))
        first_is_blind = is_causal(encoder.model, (2, 3), call=encoder._states, length=2, exact=True)
    if first_is_blind and not torch.equal(states[0, 1], states[1, 1]):
        raise TrialError(
            f"tasks.pooling is cls, but {type(encoder.model).__name__} is causal: its first token sees no other token; "
            "expected mean or last"
        )
