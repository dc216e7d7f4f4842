"""Two texts of the tiny vocabulary, one of them shorter; and what spaces draw and their models say of texts."""

import numpy as np
import torch

IDS = torch.tensor([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]])
MASK = (IDS > 0).long()


def output(model, ids=IDS, mask=MASK):
    """``[texts, tokens, width]``, the last hidden states."""
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=mask).last_hidden_state


def samples(space, count, seed=1):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]
