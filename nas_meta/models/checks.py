"""What a model must be like before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_meta.core.guard import type_name
from nas_meta.errors import TrialError
from nas_meta.models.inputs import describe_inputs, example_inputs
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import space_name
from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT, TEXT

if TYPE_CHECKING:
    from nas_meta.models.encoder import Encoder


def check_model(model: Any, space: SearchSpace) -> None:
    """Raises TrialError where what a space built is no model of what it takes."""
    built = f"build() of {space_name(space)} returned "
    if not isinstance(model, nn.Module):
        raise TrialError(f"{built}{type_name(model)}; expected a torch module")
    if next(model.parameters(), None) is None:
        raise TrialError(f"{built}a {type(model).__name__} without parameters; expected some")
    inputs = example_inputs(space, 2, 4, next(model.parameters()).device)
    training = model.training
    with torch.no_grad():
        output = model.eval()(**inputs)
    model.train(training)
    states = output if isinstance(output, Tensor) else getattr(output, "last_hidden_state", None)
    if not isinstance(states, Tensor):
        raise TrialError(f"{built}a model that gives {type_name(output)}; expected last_hidden_state, or a tensor")
    shape = tuple(states.shape)
    # A vision transformer has states of its patches, and perhaps one more.
    tokens = {TEXT: 4, IMAGE: shape[1] if len(shape) == 3 else 1}
    expected = [[2, tokens[space.modality]], [2]] if space.modality != IMAGE_TEXT else [[2]]
    if not states.is_floating_point() or list(shape[:-1]) not in expected or not all(shape):
        words = {TEXT: "[2, 4, width] or [2, width]", IMAGE: "[2, patches, width] or [2, width]"}
        raise TrialError(
            f"{built}a model that gives {states.dtype} {list(shape)} for {describe_inputs(space, 2, 4)}; "
            f"expected floating point {words.get(space.modality, '[2, width]')}"
        )


def check_pooling(encoder: Encoder) -> None:
    """Raises TrialError where embeddings would be states that have seen nothing of their text: causal and ``cls``."""
    if encoder.pooling != "cls" or "pixel_values" in encoder.example:
        return
    device = next(encoder.parameters()).device
    ids = torch.tensor([[1, 2], [1, 3], [4, 2]], device=device)
    training = encoder.training
    encoder.eval()
    with torch.no_grad():
        states = encoder._states(input_ids=ids, attention_mask=torch.ones_like(ids))
    encoder.train(training)
    if states.ndim == 3 and torch.equal(states[0, 0], states[1, 0]) and not torch.equal(states[0, 1], states[2, 1]):
        raise TrialError(
            f"tasks.pooling is cls, but {type(encoder.model).__name__} is causal: a first token sees no other; "
            "expected mean or last"
        )
