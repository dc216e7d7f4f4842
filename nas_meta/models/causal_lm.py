"""How probable a causal language model finds words behind a prompt: many of them in one pass, each token once.

The examples of a prompt are read once, and their keys and values serve every query. A query's row holds its tokens and
behind them those of all labels side by side; each label sees the examples, the query and itself, as if it were alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS = 1024  # in one pass where nothing is learned: each may have a logit for every token of the vocabulary


@dataclass(frozen=True)
class LanguageModel:
    """The parts of a causal language model.

    Attributes:
        body: gives hidden states, and takes ``past_key_values``.
        head: its weight turns states into logits; the table of token embeddings where the two are tied.
    """

    body: nn.Module
    head: nn.Module

    def log_probabilities(self, states: Tensor) -> Tensor:
        """States ``[M, H]`` to log-probabilities ``[M, V]`` of the next token, in fp32 or wider."""
        logits = F.linear(states, self.head.weight, getattr(self.head, "bias", None))
        return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)

    @property
    def positions(self) -> int | None:
        """How many tokens it can see at once, where it says so."""
        config = self.body.config
        known = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
        return min((n for n in known if n), default=None)


def language_model(model: nn.Module) -> LanguageModel | None:
    """The language model that a model of transformers is or holds, or None where it has no head."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return None
    body, head = model, model.get_output_embeddings()
    while body.base_model is not body:
        body = body.base_model
    if head is None and getattr(body.config, "tie_word_embeddings", False):
        head = body.get_input_embeddings()
    return LanguageModel(body, head) if hasattr(head, "weight") else None


def is_causal(lm: LanguageModel) -> bool:
    """Whether no state depends on the token behind it: by its derivative, which is then zero and not almost zero."""
    table = lm.body.get_input_embeddings().weight
    training = lm.body.training
    with torch.enable_grad():
        tokens = table[:3].detach().clone()[None].requires_grad_()
        states = lm.body.eval()(inputs_embeds=tokens).last_hidden_state[:, :2]
        weights = torch.linspace(1, 2, states.shape[-1], dtype=states.dtype, device=states.device)
        (gradient,) = torch.autograd.grad((states * weights).sum(), tokens)
    lm.body.train(training)
    return bool((gradient[:, 2] == 0).all())


@dataclass(frozen=True)
class Rows:
    """Queries and their labels as one batch, R rows of L tokens, behind P tokens that all of them share.

    Attributes:
        ids, positions: ``[R, L]``.
        seen: ``[R, L, P + L]``, whether the token of the second dimension sees that of the third.
        source: ``[S]``, for each token that is scored where its probability is told, in the rows one after the other.
        target: ``[S]``, its id.
        label: ``[S]``, the label that it belongs to, counted over all rows.
    """

    ids: np.ndarray
    positions: np.ndarray
    seen: np.ndarray
    source: np.ndarray
    target: np.ndarray
    label: np.ndarray


def lay_out(queries: Sequence[np.ndarray], labels: Sequence[Sequence[np.ndarray]], past: int) -> Rows:
    """The batch of some queries, each with its labels; ``past`` is P."""
    # The last token of a label tells nothing that is asked for.
    shapes = [(len(q), [len(label) - 1 for label in own]) for q, own in zip(queries, labels, strict=True)]
    width = max(length + sum(inner) for length, inner in shapes)
    ids, positions = np.zeros((2, len(queries), width), dtype=np.int64)
    owner = np.full(ids.shape, -1)  # 0 of the query, then 1, 2, ... of its labels; -1 where there is no token
    source, target, label_of = [], [], []
    number = 0
    for r, (query, own) in enumerate(zip(queries, labels, strict=True)):
        length = end = len(query)
        ids[r, :length], positions[r, :length], owner[r, :length] = query, past + np.arange(length), 0
        for j, label in enumerate(own, start=1):
            here = slice(end, end + len(label) - 1)
            ids[r, here], owner[r, here] = label[:-1], j
            positions[r, here] = past + length + np.arange(len(label) - 1)
            source += [r * width + length - 1, *range(r * width + end, r * width + here.stop)]
            target += label.tolist()
            label_of += [number] * len(label)
            number, end = number + 1, here.stop
    before = np.tri(width, dtype=bool)
    seen = before & ((owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None]))
    shared = np.ones((*ids.shape, past), dtype=bool)
    return Rows(ids, positions, np.concatenate([shared, seen], 2), *map(np.array, (source, target, label_of)))


def label_log_probabilities(
    lm: LanguageModel,
    examples: np.ndarray,
    queries: Sequence[np.ndarray],
    labels: Sequence[Sequence[np.ndarray]],
    shared: bool = True,
) -> Tensor:
    """log p(label | examples, query), the sum over the label's tokens, for each label of each query in turn.

    Args:
        examples: ``[P]`` token ids, may be none.
        queries: token ids, at least one each.
        labels: for each query the token ids of its labels, at least one each.
        shared: whether the examples are read once for all queries; otherwise with each of them. The result is the same.
    """
    if not shared:
        queries, examples = [np.concatenate([examples, query]) for query in queries], examples[:0]
    device = lm.head.weight.device
    pairs: Sequence[Any] = ()
    if len(examples):
        pairs = _keys_and_values(lm.body, torch.from_numpy(examples.astype(np.int64))[None].to(device))
    parts = []
    for some in _chunks(queries, labels):
        rows = lay_out([queries[i] for i in some], [labels[i] for i in some], len(examples))
        parts.append(_scored(lm, rows, pairs, device))
    return torch.cat(parts)


def _scored(lm: LanguageModel, rows: Rows, pairs: Sequence[Any], device: torch.device) -> Tensor:
    from transformers import DynamicCache

    dtype = next(lm.body.parameters()).dtype
    # transformers takes a mask [R, 1, L, P + L] as it is; the lowest number of bfloat16, that autocast may bring, is
    # low enough for all.
    mask = torch.zeros(rows.seen.shape, dtype=dtype).masked_fill_(
        ~torch.from_numpy(rows.seen), torch.finfo(torch.bfloat16).min
    )
    past = {}
    if pairs:
        times = len(rows.ids)
        past["past_key_values"] = DynamicCache([tuple(t.expand(times, *t.shape[1:]) for t in pair) for pair in pairs])
    states = lm.body(
        input_ids=torch.from_numpy(rows.ids).to(device),
        position_ids=torch.from_numpy(rows.positions).to(device),
        attention_mask=mask.unsqueeze(1).to(device),
        **past,
    ).last_hidden_state
    where, which = np.unique(rows.source, return_inverse=True)
    told = lm.log_probabilities(states.flatten(0, 1)[torch.from_numpy(where).to(device)])
    scored = told[torch.from_numpy(which).to(device), torch.from_numpy(rows.target).to(device)]
    sums = scored.new_zeros(int(rows.label[-1]) + 1)
    return sums.index_add(0, torch.from_numpy(rows.label).to(device), scored)


def _keys_and_values(body: nn.Module, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What the tokens ``[1, P]`` are to those behind them, layer by layer."""
    from transformers import DynamicCache

    cache = DynamicCache()
    body(input_ids=ids, past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def _chunks(queries: Sequence[np.ndarray], labels: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Consecutive queries of about :data:`TOKENS` tokens; all of them where something is learned."""
    if torch.is_grad_enabled():
        return [np.arange(len(queries))]
    sizes = [len(q) + sum(map(len, own)) for q, own in zip(queries, labels, strict=True)]
    return np.split(np.arange(len(queries)), np.flatnonzero(np.diff(np.cumsum(sizes) // TOKENS)) + 1)
