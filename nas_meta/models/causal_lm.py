"""Log-probabilities of labels after a prompt, from a causal language model that encodes every token once.

The examples of a prompt are encoded once, and all queries share their keys and values. The row of a query holds its
tokens and then the tokens of all its labels as branches (:func:`lay_out`). Invariant: a label attends to the examples,
the query and itself, so its log-probability is the one that it would have in a prompt without the other labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS = 1024  # tokens per forward pass without gradients: each may need a logit for every token of the vocabulary


@dataclass(frozen=True)
class LanguageModel:
    """The parts of a causal language model.

    Attributes:
        body: Model that returns hidden states and takes ``past_key_values``.
        head: Module whose weight ``[V, H]`` maps states to logits; the token embeddings if the two are tied.
    """

    body: nn.Module
    head: nn.Module

    def log_probabilities(self, states: Tensor) -> Tensor:
        """Return the log-probabilities of the next token.

        Args:
            states: Hidden states ``[M, H]``.

        Returns:
            Log-probabilities ``[M, V]`` over the vocabulary, in fp32 or wider.
        """
        logits = F.linear(states, self.head.weight, getattr(self.head, "bias", None))
        return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)

    @property
    def positions(self) -> int | None:
        """Maximum context length in tokens; None if the configuration does not state one."""
        config = self.body.config
        known = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
        return min((n for n in known if n), default=None)


def language_model(model: nn.Module) -> LanguageModel | None:
    """Return the language model that a transformers model is or wraps.

    Args:
        model: Any module.

    Returns:
        Its body and head; None if it is not a transformers model or has no language-modelling head.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return None
    body, head = model, model.get_output_embeddings()
    while body.base_model is not body:
        body = body.base_model
    if head is None and getattr(body.config, "tie_word_embeddings", False):
        head = body.get_input_embeddings()
    return LanguageModel(body, head) if hasattr(head, "weight") else None


@dataclass(frozen=True)
class Rows:
    """Queries and their labels as one batch: R rows of L tokens after P tokens that all rows share.

    The label tokens of all rows are scored, S in total; :func:`lay_out` draws an example.

    Attributes:
        ids: Token ids ``[R, L]``, 0 for padding.
        positions: Positions ``[R, L]``, 0 for padding.
        visible: ``[R, L, P + L]``, whether the token of the second dimension attends to the token of the third.
        source: ``[S]``, the index in the flattened rows ``[R * L]`` of the state that predicts each scored token.
        target: ``[S]``, the id of each scored token.
        label: ``[S]``, the label of each scored token, numbered over all rows.
    """

    ids: np.ndarray
    positions: np.ndarray
    visible: np.ndarray
    source: np.ndarray
    target: np.ndarray
    label: np.ndarray


def lay_out(queries: Sequence[np.ndarray], labels: Sequence[Sequence[np.ndarray]], past: int) -> Rows:
    """Lay out each query with its labels in one row: a prefix and its branches, known as tree attention.

    Branch 0 is the query, branches 1, 2, ... are its labels, and -1 is padding. A token attends to the shared prompt,
    to the query, and to its own branch, up to its own column. A label continues the positions of its query, whatever
    column it starts in. The last token of a label is predicted but predicts nothing, so it is not part of the row.

    Example: a prompt of 3 tokens ``e``, a query ``q0 q1`` with the labels ``a0 a1 a2``, ``b0 b1`` and ``c0``, and one
    column of padding, because another row is longer::

                    prompt     query    label a  label b  padding
                    e0 e1 e2   q0 q1    a0 a1    b0       -
        column                  0  1     2  3     4        5
        position     0  1  2    3  4     5  6     5        0
        branch                  0  0     1  1     2       -1

        visible to                                                 predicts
        q0           x  x  x    x  .     .  .     .        .
        q1           x  x  x    x  x     .  .     .        .       a0, b0, c0
        a0           x  x  x    x  x     x  .     .        .       a1
        a1           x  x  x    x  x     x  x     .        .       a2
        b0           x  x  x    x  x     .  .     x        .       b1
        -            x  x  x    x  x     .  .     .        x

        source       1  2  3    1  4     1
        target      a0 a1 a2   b0 b1    c0
        label        0  0  0    1  1     2

    Args:
        queries: Token ids of each query, at least one token.
        labels: For each query, the token ids of its labels, at least one token each.
        past: P, the number of tokens of the shared prompt.

    Returns:
        One row per query, padded on the right to the longest.
    """
    shapes = [(len(q), [len(label) - 1 for label in candidates]) for q, candidates in zip(queries, labels, strict=True)]
    width = max(length + sum(inner) for length, inner in shapes)
    ids, positions = np.zeros((2, len(queries), width), dtype=np.int64)
    branch = np.full(ids.shape, -1)
    source, target, label_of = [], [], []
    number = 0
    for r, (query, candidates) in enumerate(zip(queries, labels, strict=True)):
        length = end = len(query)
        ids[r, :length], positions[r, :length], branch[r, :length] = query, past + np.arange(length), 0
        for j, label in enumerate(candidates, start=1):
            columns = slice(end, end + len(label) - 1)
            ids[r, columns], branch[r, columns] = label[:-1], j
            positions[r, columns] = past + length + np.arange(len(label) - 1)
            source += [r * width + length - 1, *range(r * width + end, r * width + columns.stop)]
            target += label.tolist()
            label_of += [number] * len(label)
            number, end = number + 1, columns.stop
    before = np.tri(width, dtype=bool)
    visible = before & ((branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None]))
    prompt = np.ones((*ids.shape, past), dtype=bool)
    return Rows(ids, positions, np.concatenate([prompt, visible], 2), *map(np.array, (source, target, label_of)))


def label_log_probabilities(
    lm: LanguageModel,
    examples: np.ndarray,
    queries: Sequence[np.ndarray],
    labels: Sequence[Sequence[np.ndarray]],
    shared: bool = True,
) -> Tensor:
    """Return log p(label | examples, query) of every label, summed over the tokens of the label.

    Args:
        lm: Causal language model.
        examples: Token ids ``[P]`` of the prompt before the queries; may be empty.
        queries: Token ids of each query, at least one token.
        labels: For each query, the token ids of its labels, at least one token each.
        shared: Whether the examples are encoded once for all queries; otherwise they are repeated in every row. The
            result is the same. Gradient checkpointing needs False, because checkpointed layers cache no keys and
            values.

    Returns:
        Log-probabilities ``[labels]``, differentiable if gradients are enabled: the labels of the first query, then
        those of the second, and so on.
    """
    if not shared:
        queries, examples = [np.concatenate([examples, query]) for query in queries], examples[:0]
    device = lm.head.weight.device
    cached: Sequence[Any] = ()
    if len(examples):
        cached = _keys_and_values(lm.body, torch.from_numpy(examples.astype(np.int64))[None].to(device))
    parts = []
    for chunk in _chunks(queries, labels):
        rows = lay_out([queries[i] for i in chunk], [labels[i] for i in chunk], len(examples))
        parts.append(_score(lm, rows, cached, device))
    return torch.cat(parts)


def _score(lm: LanguageModel, rows: Rows, cached: Sequence[Any], device: torch.device) -> Tensor:
    """The log-probability of every label of the rows, ``[labels]``."""
    from transformers import DynamicCache

    dtype = next(lm.body.parameters()).dtype
    # transformers adds a mask [R, 1, L, P + L] to the attention scores. The lowest number of bfloat16 is low enough in
    # every precision, and does not become minus infinity under autocast.
    mask = torch.zeros(rows.visible.shape, dtype=dtype).masked_fill_(
        ~torch.from_numpy(rows.visible), torch.finfo(torch.bfloat16).min
    )
    past = {}
    if cached:
        count = len(rows.ids)
        past["past_key_values"] = DynamicCache([tuple(t.expand(count, *t.shape[1:]) for t in pair) for pair in cached])
    states = lm.body(
        input_ids=torch.from_numpy(rows.ids).to(device),
        position_ids=torch.from_numpy(rows.positions).to(device),
        attention_mask=mask.unsqueeze(1).to(device),
        **past,
    ).last_hidden_state
    # One distribution over the vocabulary per distinct source, however many labels start from it.
    sources, inverse = np.unique(rows.source, return_inverse=True)
    distributions = lm.log_probabilities(states.flatten(0, 1)[torch.from_numpy(sources).to(device)])
    scored = distributions[torch.from_numpy(inverse).to(device), torch.from_numpy(rows.target).to(device)]
    sums = scored.new_zeros(int(rows.label[-1]) + 1)
    return sums.index_add(0, torch.from_numpy(rows.label).to(device), scored)


def _keys_and_values(body: nn.Module, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The keys and values of the tokens ``[1, P]``, layer by layer."""
    from transformers import DynamicCache

    cache = DynamicCache()
    body(input_ids=ids, past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def _chunks(queries: Sequence[np.ndarray], labels: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Indices of consecutive queries, about :data:`TOKENS` tokens per chunk; one chunk if gradients are enabled."""
    if torch.is_grad_enabled():
        return [np.arange(len(queries))]
    sizes = [len(q) + sum(map(len, candidates)) for q, candidates in zip(queries, labels, strict=True)]
    return np.split(np.arange(len(queries)), np.flatnonzero(np.diff(np.cumsum(sizes) // TOKENS)) + 1)
