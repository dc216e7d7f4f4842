"""From examples to one embedding each: packing or batching by length, the model, pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from nas_meta.errors import TrialError
from nas_meta.models.compute import Compute, allow_checkpointing, checkpointed, compile_model
from nas_meta.models.packing import Packing, pack, pack_sets
from nas_meta.models.pooling import POOLINGS, _sums, pool_states
from nas_meta.tasks.examples import IMAGE, TEXT
from nas_meta.tasks.pool import INPUTS, Pool

TOKENS = 4096  # in one call of the model, where texts are packed
IMAGES = 64  # in one call of the model


class Encoder(nn.Module):
    """A model with pooling: texts, images or both to embeddings ``[B, D]``.

    Args:
        model: what a search space builds.
        pooling: ``mean`` over the tokens of the mask, or over all states of an image; ``cls``, the first of
            them; ``last``, the last one of the mask, or of all; or ``attention``, the mean weighted by the softmax of
            ``model.pooling_scores(states)``, a number a token.
        compute: how the model computes; embeddings are never narrower than its parameters.
        example: the inputs of one example, for measuring; by default those of a text.

    Raises:
        TrialError: layers shall be computed again, and the model has none that can; or there is no such pooling, or the
            model has no scores for it.

    Attributes:
        learned: what the learner learns beside the model (a head, a memory), saved and restored with it.
        inserted: names of the parameters that the learner put into the model.
    """

    def __init__(
        self, model: nn.Module, pooling: str = "mean", compute: Compute | None = None,
        example: Mapping[str, Tensor] | None = None,
    ):  # fmt: skip
        super().__init__()
        if pooling not in POOLINGS:
            raise TrialError(f"pooling is {pooling!r}; expected {', '.join(POOLINGS)}")
        if pooling == "attention" and not hasattr(model, "pooling_scores"):
            raise TrialError(
                f"tasks.pooling is attention, but {type(model).__name__} scores no tokens (pooling_scores); "
                "expected mean, cls or last"
            )
        self.model = model
        self.pooling = pooling
        self.compute = compute or Compute()
        self.example = example or dict.fromkeys(INPUTS, torch.ones(1, 1, dtype=torch.long))
        self._layers = allow_checkpointing(model) if self.compute.gradient_checkpointing else ()
        self._compiled: Callable[..., Any] | None = None
        self._call: Callable[..., Any] | None = None  # in the place of the model
        self.learned = nn.Module()
        self.inserted: frozenset[str] = frozenset()
        self.one_text_a_row = False  # where somebody looks at each text between the layers: no packing
        # Set while a learner trains with regularisation: in the place of pool.batch, and behind the embeddings.
        self.inputs_of: Callable[[Pool, np.ndarray], tuple[np.ndarray, ...]] | None = None
        self.changed: Callable[[Tensor, Pool, np.ndarray], Tensor] | None = None
        # A space may freeze what it builds, or parts of it; and embeddings say nothing to the head of a language model.
        head = _head_of_its_own(model)
        self.frozen = frozenset(n for n, p in model.named_parameters() if not p.requires_grad or p is head)

    @cached_property
    def width(self) -> int:
        """D, the length of an embedding."""
        device = next(self.model.parameters()).device
        was_training = self.training
        self.eval()
        with torch.no_grad():
            width = self(**{name: tensor.to(device) for name, tensor in self.example.items()}).shape[1]
        self.train(was_training)
        return width

    @cached_property
    def packs_from(self) -> int | None:
        """The model's first position if it bears packed texts, else None.

        Tried, not looked up: the embeddings of two texts in one row must be those of the two alone. The first text is
        longer than the window of sliding attention, which a mask for packed texts may put out of force.
        """
        from transformers import PreTrainedModel

        if not isinstance(self.model, PreTrainedModel) or self.model.main_input_name != INPUTS[0]:
            return None
        device = next(self.parameters()).device
        long = min((getattr(self.model.config, "sliding_window", None) or 0) + 3, self._widest - 2)
        ids = torch.tensor([[5 + i % 3 for i in (*range(long), 0, 1)]], device=device)
        layout = ([[0] * long + [1, 1]], [[*range(long), 0, 1]], [0, long], [long, 2])
        whose = Packing(*(torch.tensor(a, device=device) for a in layout))
        training, compute = self.training, self.compute
        self.eval()
        self.compute = replace(compute, precision="fp32")  # in which alike is told from nearly alike
        try:
            with torch.no_grad():
                alone = torch.cat([self(i, torch.ones_like(i)) for i in (ids[:, :long], ids[:, long:])])
                for start in (0, (self.model.config.pad_token_id or 0) + 1):  # BERT's, RoBERTa's
                    together = self(ids, whose._replace(positions=whose.positions + start))
                    if torch.allclose(together, alone, atol=1e-4, rtol=1e-3):
                        return start
            return None
        except (RuntimeError, ValueError, TypeError, IndexError):
            return None
        finally:
            self.train(training)
            self.compute = compute

    @property
    def _widest(self) -> int:
        """Most tokens of a row."""
        return getattr(self.model.config, "max_position_embeddings", None) or TOKENS

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | Packing | None = None, **others: Tensor
    ) -> Tensor:
        """Embeddings ``[B, D]`` of what :meth:`Pool.inputs` names.

        Args:
            attention_mask: ``[B, T]``, or says how texts are packed.
            others: go to the model as they are, such as ``pixel_values`` ``[B, channels, height, width]``.
        """
        if isinstance(attention_mask, Packing):
            return self._of_packed(input_ids, attention_mask)
        if input_ids is None:
            states = self._states(**others)
        else:
            states = self._states(input_ids=input_ids, attention_mask=attention_mask, **others)
        return states if states.ndim == 2 else pool_states(self.model, states, attention_mask, self.pooling)

    def _of_packed(self, input_ids: Tensor, whose: Packing) -> Tensor:
        # transformers takes a mask [R, 1, L, L] as it is: 0 where a token is seen, the lowest number elsewhere.
        dtype = next(self.parameters()).dtype
        unseen = (whose.owner[:, :, None] != whose.owner[:, None, :]).unsqueeze(1)
        lowest = torch.finfo(torch.bfloat16 if self.compute.precision == "bf16" else dtype).min
        mask = unseen.to(dtype) * lowest
        states = self._states(input_ids=input_ids, attention_mask=mask, position_ids=whose.positions).flatten(0, 1)
        if self.pooling == "cls":
            return states.index_select(0, whose.first)
        if self.pooling == "last":
            return states.index_select(0, whose.first + whose.lengths - 1)
        if self.pooling == "attention":
            scores = self.model.pooling_scores(states).to(states.dtype)
            # The softmax of each text. One number for all keeps it in range, for a norm bounds the states.
            weights = (scores - scores.detach().max()).exp().unsqueeze(-1)
            tiny = torch.finfo(weights.dtype).tiny
            return _sums(states * weights, whose) / _sums(weights, whose).clamp(min=tiny)
        return _sums(states, whose) / whose.lengths[:, None].to(states.dtype).clamp(min=1)

    def _states(self, **inputs: Tensor) -> Tensor:
        """What the model gives for these inputs, in the precision of its parameters."""
        with self.compute.autocast():
            output = (self._call or self.model)(**inputs)
        states = output if isinstance(output, Tensor) else output.last_hidden_state
        return states if self.compute.precision == "fp32" else states.to(next(self.model.parameters()).dtype)

    def compile(self) -> None:
        """From now on the model is compiled, where it computes with its own weights."""
        self._compiled = compile_model(self.model)

    @contextmanager
    def _own_weights(self) -> Iterator[None]:
        """Within, the model computes with no other weights than its own.

        Others (``functional_call``) would be compiled in, and be gone when a layer is computed again.
        """
        self._call = self._compiled
        try:
            with checkpointed(self._layers):
                yield
        finally:
            self._call = None

    @contextmanager
    def keeping_graphs(self) -> Iterator[None]:
        """Within, no layer is computed again: what is differentiated there may be gone, or differentiated twice."""
        layers, self._layers = self._layers, ()
        try:
            yield
        finally:
            self._layers = layers

    def embed(
        self, pool: Pool, indices: np.ndarray, rows: int = 10, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Embeddings ``[len(indices), D]`` of examples of a pool, in the order of ``indices``.

        Texts are packed where the model bears it. Otherwise they are sorted by length and run in batches of about
        ``rows``, each padded to its own longest: short texts do not pay for the longest one. Images alone are run many
        at a time. Differentiable where gradients are enabled.

        Args:
            weights: stand in for the parameters of these names, which stay as they are.
        """
        if self.one_text_a_row or not self._packs(pool):
            order = np.argsort(pool.lengths[indices], kind="stable")
            noisy = partial(self.inputs_of, pool) if self.training and self.inputs_of else None
            rows = max(rows, IMAGES) if pool.modality == IMAGE else rows
            batches = [pool.inputs(indices[c], noisy) for c in np.array_split(order, max(1, len(order) // rows))]
        else:
            order = np.arange(len(indices))
            calls = pool.lengths[indices].cumsum() // TOKENS
            chunks = np.split(indices, np.flatnonzero(np.diff(calls)) + 1)
            batches = [_named(pack(pool, chunk, self._widest, self.packs_from)) for chunk in chunks]
        if weights is None:
            with self._own_weights():
                parts = [self(**inputs) for inputs in map(self._here, batches)]
        else:
            parts = [functional_call(self, dict(weights), (), inputs) for inputs in map(self._here, batches)]
        embeddings = torch.cat(parts)
        if not torch.isfinite(embeddings.detach()).all():
            raise TrialError("the embeddings are not finite: training diverged; lower learner.lr")
        embeddings = embeddings[torch.from_numpy(np.argsort(order, kind="stable")).to(embeddings.device)]
        return self.changed(embeddings, pool, indices) if self.training and self.changed else embeddings

    def stacked(self, pool: Pool, sets: Sequence[np.ndarray]) -> dict[str, Any]:
        """The inputs of equally many examples for each task by name, ``[tasks, ...]``, for ``vmap``."""
        if self._packs(pool):
            return self._here(_named(pack_sets(pool, sets, self._widest, self.packs_from)))
        inputs = self._here(pool.inputs(np.concatenate(sets)))
        return {name: tensor.unflatten(0, (len(sets), -1)) for name, tensor in inputs.items()}

    def _packs(self, pool: Pool) -> bool:
        return pool.modality == TEXT and self.packs_from is not None

    def _here(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        device = next(self.parameters()).device
        return tree_map(lambda array: torch.from_numpy(array).to(device), dict(inputs))

    def body_parameters(self, train_embeddings: bool) -> Iterator[nn.Parameter]:
        """The parameters that learn: those the space did not freeze, without the token and position tables or with."""
        tables = {
            id(p) for module in self.model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()
        }
        return (
            p for name, p in self.model.named_parameters()
            if name not in self.frozen and (train_embeddings or id(p) not in tables)
        )  # fmt: skip


def _head_of_its_own(model: nn.Module) -> nn.Parameter | None:
    """The weight that turns states into tokens, where a model has one that is not its table of tokens."""
    from transformers import PreTrainedModel

    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return None if head is None or head.weight is model.get_input_embeddings().weight else head.weight


def _named(inputs: Sequence[Any]) -> dict[str, Any]:
    """The inputs of texts by their names."""
    return dict(zip(INPUTS, inputs, strict=True))
