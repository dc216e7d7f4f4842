"""A batch of two token sequences of different lengths, and helpers to run models and to sample architectures."""

import numpy as np
import torch

IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]])
MASK = (IDS > 0).long()


def output(model, ids=IDS, mask=MASK):
    """Return the last hidden states of a model in evaluation mode.

    Args:
        model: A model with ``last_hidden_state`` in its output.
        ids: Token ids, ``[texts, tokens]``.
        mask: Attention mask of the same shape.

    Returns:
        The states, ``[texts, tokens, width]``.
    """
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=mask).last_hidden_state


def samples(space, count, seed=1):
    """Draw random architectures from a space.

    Args:
        space: The search space.
        count: Number of architectures.
        seed: Seed of the draws.

    Returns:
        A list of architectures.
    """
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]
