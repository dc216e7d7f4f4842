"""From token ids to one embedding a text: batching by length, the model, pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas_meta.errors import TrialError
from nas_meta.tasks.pool import Pool


class Encoder(nn.Module):
    """A model with pooling: ``input_ids`` and ``attention_mask`` ``[B, T]`` to embeddings ``[B, D]``.

    Args:
        model: what a search space builds.
        pooling: ``mean`` over the tokens of the mask, or ``cls``, the first token.

    Attributes:
        learned: what the learner learns beside the model (a head, a memory), saved and restored with it.
        inserted: names of the parameters that the learner put into the model.
    """

    def __init__(self, model: nn.Module, pooling: str = "mean"):
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.learned = nn.Module()
        self.inserted: frozenset[str] = frozenset()
        # Set while a learner trains with regularisation: in the place of pool.batch, and behind the embeddings.
        self.inputs_of: Callable[[Pool, np.ndarray], tuple[np.ndarray, ...]] | None = None
        self.changed: Callable[[Tensor, Pool, np.ndarray], Tensor] | None = None
        # A space may freeze what it builds, or parts of it.
        self.frozen = frozenset(name for name, p in model.named_parameters() if not p.requires_grad)

    @cached_property
    def width(self) -> int:
        """D, the length of an embedding."""
        one = torch.ones(1, 1, dtype=torch.long, device=next(self.model.parameters()).device)
        was_training = self.training
        self.eval()
        with torch.no_grad():
            width = self(one, one).shape[1]
        self.train(was_training)
        return width

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        if attention_mask.ndim == 4:
            attention_mask = (attention_mask[:, 0, 0] == 0).to(attention_mask.dtype)
        states = output if isinstance(output, Tensor) else output.last_hidden_state
        if states.ndim == 2:
            return states
        if self.pooling == "cls":
            return states[:, 0]
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)

    def embed(
        self, pool: Pool, indices: np.ndarray, rows: int = 10, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Embeddings ``[len(indices), D]`` of texts of a pool, in the order of ``indices``.

        The texts are sorted by length and run in batches of about ``rows``, each padded to its own longest:
        short texts do not pay for the longest one. Differentiable where gradients are enabled.

        Args:
            weights: stand in for the parameters of these names, which stay as they are.
        """
        device = next(self.parameters()).device
        order = np.argsort(pool.lengths[indices], kind="stable")
        noisy = self.training and self.inputs_of is not None
        parts = []
        for chunk in np.array_split(order, max(1, len(order) // rows)):
            arrays = self.inputs_of(pool, indices[chunk]) if noisy else pool.batch(indices[chunk])
            inputs = tuple(torch.from_numpy(a).to(device) for a in arrays)
            parts.append(self(*inputs) if weights is None else functional_call(self, dict(weights), inputs))
        embeddings = torch.cat(parts)
        if not torch.isfinite(embeddings.detach()).all():
            raise TrialError("the embeddings are not finite: training diverged; lower learner.lr")
        embeddings = embeddings[torch.from_numpy(np.argsort(order, kind="stable")).to(device)]
        return self.changed(embeddings, pool, indices) if self.training and self.changed else embeddings

    def stacked(self, pool: Pool, sets: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
        """The inputs of equally many texts for each task, ``[tasks, texts, ...]``, in a form that bears ``vmap``.

        transformers looks at the values of a mask ``[B, T]``, which ``vmap`` forbids; one of shape ``[B, 1, 1, T]``,
        0 where there is a token and the lowest number elsewhere, it takes as it is.
        """
        from transformers import PreTrainedModel

        parameter = next(self.parameters())
        inputs = [torch.from_numpy(a).to(parameter.device) for a in pool.batch(np.concatenate(sets))]
        if isinstance(self.model, PreTrainedModel):
            absent = (inputs[1] == 0)[:, None, None, :]
            inputs[1] = absent.to(parameter.dtype) * torch.finfo(parameter.dtype).min
        return tuple(a.unflatten(0, (len(sets), -1)) for a in inputs)

    def body_parameters(self, train_embeddings: bool) -> Iterator[nn.Parameter]:
        """The parameters that learn: those the space did not freeze, without the token and position tables or with."""
        tables = {
            id(p) for module in self.model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()
        }
        return (
            p for name, p in self.model.named_parameters()
            if name not in self.frozen and (train_embeddings or id(p) not in tables)
        )  # fmt: skip
