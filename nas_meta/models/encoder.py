"""The encoder: a model with pooling, which turns examples into one embedding each.

Texts are packed where the model supports it, and batched by length otherwise; the embeddings are the same.
"""

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

from nas_meta.errors import TrialError
from nas_meta.models.compute import Compute, allow_checkpointing, checkpointed, compile_model
from nas_meta.models.evaluating import inference
from nas_meta.models.packing import Packing, pack, pack_sets
from nas_meta.models.pooling import POOLINGS, pool_packed, pool_states
from nas_meta.tasks.examples import IMAGE, TEXT
from nas_meta.tasks.pool import INPUTS, Pool

TOKENS = 4096  # target number of packed tokens per forward pass
IMAGES = 64  # images per forward pass


class Encoder(nn.Module):
    """A model with pooling, which maps texts, images or both to embeddings ``[B, D]``.

    Args:
        model: Model that a search space built.
        pooling: ``mean`` averages the states of the mask, or all states of an image; ``cls`` takes the first state;
            ``last`` the last state of the mask, or of all; ``attention`` averages them with the softmax of
            ``model.pooling_scores(states)``, one score per token.
        compute: Device, precision, compilation and checkpointing; by default fp32 on the CPU. Embeddings have at least
            the precision of the parameters.
        example: Inputs of one example, used to measure the width; by default those of a text.

    Attributes:
        learned: What the learner trains in addition to the model (a head, a memory); saved and restored with it.
        inserted: Names of the parameters that the learner inserted into the model.
        frozen: Names of the model's parameters that no learner trains.
        one_text_a_row: Set to True to disable packing, for code that needs one text per row between the layers.
        inputs_of: Replaces ``pool.batch`` while a learner trains with augmentation.
        observe: Called with the embeddings, the pool and the indices while a learner trains with a teacher.
        deployed: Replaces the model in evaluation: embeds examples of a pool in the form in which it is deployed.

    Raises:
        TrialError: If the pooling is unknown, if the model has no scores for ``attention``, or if gradient
            checkpointing is requested and the model has no layers that support it.
    """

    def __init__(
        self, model: nn.Module, pooling: str = "mean", compute: Compute | None = None,
        example: Mapping[str, Tensor] | None = None,
    ):  # fmt: skip
        super().__init__()
        if pooling not in POOLINGS:
            raise TrialError(f"pooling is {pooling!r}; expected one of {', '.join(POOLINGS)}")
        if pooling == "attention" and not hasattr(model, "pooling_scores"):
            raise TrialError(
                f"tasks.pooling is attention, but {type(model).__name__} has no method pooling_scores; "
                "expected mean, cls or last"
            )
        self.model = model
        self.pooling = pooling
        self.compute = compute or Compute()
        self.example = example or dict.fromkeys(INPUTS, torch.ones(1, 1, dtype=torch.long))
        self._layers = allow_checkpointing(model) if self.compute.gradient_checkpointing else ()
        self._compiled: Callable[..., Any] | None = None
        self._call: Callable[..., Any] | None = None  # replaces the model inside embed()
        self.learned = nn.Module()
        self.inserted: frozenset[str] = frozenset()
        self.one_text_a_row = False
        self.inputs_of: Callable[[Pool, np.ndarray], tuple[np.ndarray, ...]] | None = None
        self.observe: Callable[[Tensor, Pool, np.ndarray], None] | None = None
        self.deployed: Callable[[Pool, np.ndarray], np.ndarray] | None = None
        self._remembered: dict[int, tuple[Pool, np.ndarray, Tensor]] | None = None  # pool, rows of examples, embeddings
        # A space may freeze parameters. The head of a language model gets no gradient from embeddings.
        head = _untied_head(model)
        self.frozen = frozenset(n for n, p in model.named_parameters() if not p.requires_grad or p is head)

    @cached_property
    def width(self) -> int:
        """The length D of an embedding, measured on the example."""
        device = next(self.model.parameters()).device
        with inference(self):
            return self(**{name: tensor.to(device) for name, tensor in self.example.items()}).shape[1]

    @cached_property
    def packs_from(self) -> int | None:
        """The position of a text's first token in packed rows; None if the model does not support packing.

        A differential probe, because no configuration says whether a model honours a block mask and given positions.
        Two texts are embedded alone and packed in one row. Invariant of packing: the embedding of a text does not
        depend on the other texts of its row, so both embeddings must agree. The first positions 0 (BERT) and
        ``pad_token_id + 1`` (RoBERTa) are tried in this order.

        Example, for a model without sliding attention and first position 0::

            ids         5 6 7 5 6
            owner       0 0 0 1 1      text 0 is 5 6 7, text 1 is 5 6
            positions   0 1 2 0 1

        A model fails if it ignores the mask (text 1 sees text 0), ignores the positions (text 1 starts at 3), or mixes
        tokens outside of attention. It also fails if the given mask replaces its causal mask or its sliding window;
        text 0 is therefore longer than a window w (w + 3 tokens if they fit).
        """
        from transformers import PreTrainedModel

        if not isinstance(self.model, PreTrainedModel) or self.model.main_input_name != INPUTS[0]:
            return None
        device = next(self.parameters()).device
        long = min((getattr(self.model.config, "sliding_window", None) or 0) + 3, self._widest - 2)
        ids = torch.tensor([[5 + i % 3 for i in (*range(long), 0, 1)]], device=device)
        layout = ([[0] * long + [1, 1]], [[*range(long), 0, 1]], [0, long], [long, 2])
        packing = Packing(*(torch.tensor(a, device=device) for a in layout))
        compute = self.compute
        self.compute = replace(compute, precision="fp32")  # bf16 would blur the difference
        try:
            with inference(self):
                alone = torch.cat([self(i, torch.ones_like(i)) for i in (ids[:, :long], ids[:, long:])])
                for start in (0, (self.model.config.pad_token_id or 0) + 1):
                    together = self(ids, packing._replace(positions=packing.positions + start))
                    if torch.allclose(together, alone, atol=1e-4, rtol=1e-3):
                        return start
            return None
        except (RuntimeError, ValueError, TypeError, IndexError):
            return None
        finally:
            self.compute = compute

    @property
    def _widest(self) -> int:
        """Maximum number of tokens in a packed row."""
        return getattr(self.model.config, "max_position_embeddings", None) or TOKENS

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | Packing | None = None, **others: Tensor
    ) -> Tensor:
        """Embed one batch of inputs, named as :meth:`Pool.inputs` names them.

        Args:
            input_ids: Token ids ``[B, T]``, or ``[R, L]`` of packed rows; None for images.
            attention_mask: ``[B, T]``, 1 for tokens and 0 for padding; or the layout of packed rows.
            others: Passed to the model unchanged, such as ``pixel_values`` ``[B, channels, height, width]``.

        Returns:
            Embeddings ``[B, D]``.
        """
        if isinstance(attention_mask, Packing):
            return self._embed_packed(input_ids, attention_mask)
        if input_ids is None:
            states = self._states(**others)
        else:
            states = self._states(input_ids=input_ids, attention_mask=attention_mask, **others)
        return states if states.ndim == 2 else pool_states(self.model, states, attention_mask, self.pooling)

    def _embed_packed(self, input_ids: Tensor, packing: Packing) -> Tensor:
        """Embeddings ``[B, D]`` of packed rows ``[R, L]``; a token attends to the tokens of its text only."""
        # transformers adds a mask [R, 1, L, L] to the attention scores: 0 for visible tokens, the lowest number for
        # others. Under autocast it is the lowest of bfloat16, because the lowest of fp32 would become minus infinity.
        dtype = next(self.parameters()).dtype
        hidden = (packing.owner[:, :, None] != packing.owner[:, None, :]).unsqueeze(1)
        lowest = torch.finfo(torch.bfloat16 if self.compute.precision == "bf16" else dtype).min
        mask = hidden.to(dtype) * lowest
        states = self._states(input_ids=input_ids, attention_mask=mask, position_ids=packing.positions)
        return pool_packed(self.model, states, packing, self.pooling)

    def _states(self, **inputs: Tensor) -> Tensor:
        """The model's output for these inputs, in the precision of its parameters."""
        with self.compute.autocast():
            output = (self._call or self.model)(**inputs)
        states = output if isinstance(output, Tensor) else output.last_hidden_state
        return states if self.compute.precision == "fp32" else states.to(next(self.model.parameters()).dtype)

    def compile(self) -> None:
        """Compile the model for all later :meth:`embed` calls that do not replace weights."""
        self._compiled = compile_model(self.model)

    @contextmanager
    def _compiled_and_checkpointed(self) -> Iterator[None]:
        """Use the compiled model and gradient checkpointing inside the block.

        Only for calls with the model's own weights: weights that ``functional_call`` replaces would become constants of
        the compiled code, and would be gone when a layer is recomputed in the backward pass.
        """
        self._call = self._compiled
        try:
            with checkpointed(self._layers):
                yield
        finally:
            self._call = None

    @contextmanager
    def keeping_graphs(self) -> Iterator[None]:
        """Disable gradient checkpointing inside the block.

        For weights that do not outlive the forward pass, and for second derivatives, where a layer cannot be
        recomputed.
        """
        layers, self._layers = self._layers, ()
        try:
            yield
        finally:
            self._layers = layers

    def embed(
        self, pool: Pool, indices: np.ndarray, rows: int = 10, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Embed examples of a pool, differentiably if gradients are enabled.

        Texts are packed if the model supports it. Otherwise they are sorted by length and embedded in batches, each
        padded to its own longest text, so that short texts do not pay for long ones.

        Args:
            pool: Pool of examples.
            indices: ``[N]``, the examples to embed.
            rows: Approximate batch size of texts that are not packed; images alone use at least 64.
            weights: Tensors that replace the parameters of these names for this call; the model keeps its own.

        Returns:
            Embeddings ``[N, D]`` in the order of ``indices``.

        Raises:
            TrialError: If an embedding is not finite.
        """
        if self.deployed is not None and not self.training:
            return torch.from_numpy(self.deployed(pool, indices)).to(next(self.parameters()))
        if self.one_text_a_row or not self._packs(pool):
            order = np.argsort(pool.lengths[indices], kind="stable")
            augmented = partial(self.inputs_of, pool) if self.training and self.inputs_of else None
            rows = max(rows, IMAGES) if pool.modality == IMAGE else rows
            batches = [pool.inputs(indices[c], augmented) for c in np.array_split(order, max(1, len(order) // rows))]
        else:
            order = np.arange(len(indices))
            calls = pool.lengths[indices].cumsum() // TOKENS
            chunks = np.split(indices, np.flatnonzero(np.diff(calls)) + 1)
            batches = [_named(pack(pool, chunk, self._widest, self.packs_from)) for chunk in chunks]
        if weights is None:
            with self._compiled_and_checkpointed():
                parts = [self(**inputs) for inputs in map(self._to_device, batches)]
        else:
            parts = [functional_call(self, dict(weights), (), inputs) for inputs in map(self._to_device, batches)]
        embeddings = torch.cat(parts)
        if not torch.isfinite(embeddings.detach()).all():
            raise TrialError("the embeddings are not finite: training diverged; lower learner.lr")
        embeddings = embeddings[torch.from_numpy(np.argsort(order, kind="stable")).to(embeddings.device)]
        if self.training and self.observe is not None:
            self.observe(embeddings, pool, indices)
        return embeddings

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Let :meth:`embed_once` embed each example once inside the block, in which the weights must not change."""
        self._remembered = {}
        try:
            yield
        finally:
            self._remembered = None

    def embed_once(self, pool: Pool, indices: np.ndarray, rows: int = 10) -> Tensor:
        """Embed examples of a pool without gradients, in evaluation mode.

        Args:
            pool: Pool of examples.
            indices: ``[N]``, distinct examples to embed.
            rows: Approximate batch size; see :meth:`embed`.

        Returns:
            Embeddings ``[N, D]`` in the order of ``indices``. Inside :meth:`remembering`, those of earlier calls are
            reused.
        """
        self.eval()
        with torch.inference_mode():
            if self._remembered is None or self.deployed is not None:
                return self.embed(pool, indices, rows)
            start = (pool, np.full(len(pool), -1), torch.empty(0))
            _, row_of, known = self._remembered.get(id(pool), start)
            missing = indices[row_of[indices] < 0]
            if len(missing):
                row_of[missing] = len(known) + np.arange(len(missing))
                new = self.embed(pool, missing, rows)
                known = torch.cat([known, new]) if len(known) else new
                self._remembered[id(pool)] = pool, row_of, known
            return known[torch.from_numpy(row_of[indices]).to(known.device)]

    def stacked(self, pool: Pool, sets: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return the inputs of several tasks in tensors of one shape, for ``vmap``.

        Args:
            pool: Pool of examples.
            sets: For each task, the indices of its examples; all tasks have the same number.

        Returns:
            Inputs of :meth:`forward` by name, with ``[tasks]`` as the first dimension.
        """
        if self._packs(pool):
            return self._to_device(_named(pack_sets(pool, sets, self._widest, self.packs_from)))
        inputs = self._to_device(pool.inputs(np.concatenate(sets)))
        return {name: tensor.unflatten(0, (len(sets), -1)) for name, tensor in inputs.items()}

    def _packs(self, pool: Pool) -> bool:
        """Whether the examples of a pool are packed: texts, and a model that passes the probe :attr:`packs_from`."""
        return pool.modality == TEXT and self.packs_from is not None

    def _to_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays as tensors on the model's device; the fields of a :class:`Packing`, too."""
        device = next(self.parameters()).device

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        return {n: Packing(*map(tensor, v)) if isinstance(v, Packing) else tensor(v) for n, v in inputs.items()}

    def body_parameters(self, train_embeddings: bool) -> Iterator[nn.Parameter]:
        """Return the model's parameters that learners train: all but the frozen ones.

        Args:
            train_embeddings: Whether the tables of token and position embeddings are trained, too.

        Returns:
            An iterator over the parameters, in the order of the model.
        """
        tables = {
            id(p) for module in self.model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()
        }
        return (
            p for name, p in self.model.named_parameters()
            if name not in self.frozen and (train_embeddings or id(p) not in tables)
        )  # fmt: skip


def _untied_head(model: nn.Module) -> nn.Parameter | None:
    """The weight of a language model's output projection; None if there is none or it is the token table."""
    from transformers import PreTrainedModel

    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return None if head is None or head.weight is model.get_input_embeddings().weight else head.weight


def _named(inputs: Sequence[Any]) -> dict[str, Any]:
    """Token ids and mask (or packing) under the names that models give them."""
    return dict(zip(INPUTS, inputs, strict=True))
