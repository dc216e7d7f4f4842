"""Memory-augmented network (Santoro et al. 2016, "Meta-Learning with Memory-Augmented Neural Networks").

An episode is one sequence: at step t the network sees embedding x_t and the label y_{t-1} of the step before, and says
y_t; labels are shuffled between episodes, so that they must be bound to examples in memory. A controller (LSTM) gives
keys k_t; with cosine K, γ a decay, n the number of reads and m(v, n) the n-th smallest element of v (section 3):

    wʳ_t(i) = softmax_i K(k_t, M_{t-1}(i))                       read                              (2), (3)
    wᵘ_t = γ wᵘ_{t-1} + wʳ_t + wʷ_t                              usage                                (5)
    wˡᵘ_t(i) = 1 if wᵘ_t(i) ≤ m(wᵘ_t, n) else 0                  least used                           (6)
    wʷ_t = σ(α) wʳ_{t-1} + (1 - σ(α)) wˡᵘ_{t-1}                  write                                (7)
    M_t(i) = M_{t-1}(i) + wʷ_t(i) k_t                            after the least used is set to zero  (8)
    r_t = Σ_i wʳ_t(i) M_t(i), logits = W [h_t, r_t]                                                  (4)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nas_meta.learners.base import LearnerOptions, Step
from nas_meta.learners.metric import MetricLearner
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool

PRESENTATIONS = (1, 2, 5, 10)


class MANNOptions(LearnerOptions):
    """Options of the memory-augmented network; defaults of its sizes are the paper's."""

    slots: int = Field(128, ge=1, description="rows of the memory")
    memory_width: int = Field(40, ge=1, description="length of a row")
    hidden: int = Field(200, ge=1, description="units of the controller")
    reads: int = Field(4, ge=1, description="read heads")
    decay: float = Field(0.95, gt=0, lt=1, description="decay γ of the usage weights")


@dataclass(frozen=True)
class State:
    """The memory network between two steps; B sequences side by side.

    Attributes:
        memory: ``[B, slots, memory_width]``.
        read, least: ``[B, reads, slots]``, the weights of the last step.
        usage: ``[B, slots]``.
        hidden, cell: ``[B, hidden]``, of the controller.
    """

    memory: Tensor
    read: Tensor
    least: Tensor
    usage: Tensor
    hidden: Tensor
    cell: Tensor

    def repeated(self, times: int) -> State:
        """One sequence's state as the start of many."""
        return State(*(getattr(self, n).expand(times, *getattr(self, n).shape[1:]) for n in self.__dataclass_fields__))


def least_used(usage: Tensor, reads: int) -> Tensor:
    """wˡᵘ as one slot for each read head, ``[B, reads, slots]``: head j takes the j-th least used."""
    order = usage.argsort(dim=1, stable=True)[:, :reads]
    return F.one_hot(order, usage.shape[1]).to(usage.dtype)


class MemoryNetwork(nn.Module):
    """Controller, memory with least-recently-used access, and output."""

    def __init__(self, width: int, ways: int, options: MANNOptions):
        super().__init__()
        self.options, self.ways = options, ways
        self.controller = nn.LSTMCell(width + ways, options.hidden)
        self.keys = nn.Linear(options.hidden, options.reads * options.memory_width)
        self.gates = nn.Parameter(torch.zeros(options.reads))
        self.output = nn.Linear(options.hidden + options.reads * options.memory_width, ways)

    def start(self, like: Tensor) -> State:
        """The state before a sequence: an almost empty memory."""
        o = self.options
        usage = like.new_zeros(1, o.slots)
        return State(
            memory=like.new_full((1, o.slots, o.memory_width), 1e-6),
            read=like.new_zeros(1, o.reads, o.slots),
            least=least_used(usage, o.reads),
            usage=usage,
            hidden=like.new_zeros(1, o.hidden),
            cell=like.new_zeros(1, o.hidden),
        )

    def forward(self, x: Tensor, label_before: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: embeddings ``[B, D]`` and one-hot labels ``[B, N]`` to logits ``[B, N]`` and the next state."""
        o = self.options
        hidden, cell = self.controller(torch.cat([x, label_before], 1), (state.hidden, state.cell))
        keys = torch.tanh(self.keys(hidden)).view(len(x), o.reads, o.memory_width)
        read = torch.softmax(F.cosine_similarity(keys[:, :, None], state.memory[:, None], dim=-1), dim=-1)
        gate = torch.sigmoid(self.gates)[:, None]
        write = gate * state.read + (1 - gate) * state.least
        # Of the least used slots, the first one is the least used: only that is wiped.
        memory = state.memory * (1 - state.least[:, 0])[..., None] + write.transpose(1, 2) @ keys
        usage = o.decay * state.usage + (read + write).sum(1)
        said = torch.cat([hidden, (read @ memory).flatten(1)], dim=1)
        return self.output(said), State(memory, read, least_used(usage, o.reads), usage, hidden, cell)

    def along(self, z: Tensor, labels: Tensor) -> tuple[Tensor, State, Tensor]:
        """Sequences ``[B, T, D]`` with labels ``[B, T]``: logits ``[B, T, N]``, the state behind, the last labels."""
        state = self.start(z).repeated(len(z))
        before = z.new_zeros(len(z), self.ways)
        said = []
        for x, label in zip(z.unbind(1), labels.unbind(1), strict=True):
            logits, state = self(x, before, state)
            said.append(logits)
            before = F.one_hot(label, self.ways).to(z.dtype)
        return torch.stack(said, 1), state, before


class MANN(MetricLearner):
    """Memory-augmented network: reads an episode as a sequence and remembers what it saw."""

    Options = MANNOptions
    any_ways = False

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        return MemoryNetwork(encoder.width, ways, self.options)

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Cross-entropy of every step of the shuffled episode; the accuracy by presentation stays in the network."""
        network = encoder.learned
        labels = np.concatenate([episode.support_labels, episode.labels])
        order = torch.randperm(len(labels)).numpy()
        z = F.normalize(encoder.embed(pool, episode.indices[order]), dim=-1)
        target = torch.from_numpy(labels[order]).to(z.device)
        logits = network.along(z[None], target[None])[0][0]
        network.presented = presentation_order(labels[order], logits.argmax(1).cpu().numpy())
        return F.cross_entropy(logits, target)

    def meta_train(
        self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode], start: Mapping[str, Any] | None = None
    ) -> Iterator[Step]:
        for step in super().meta_train(encoder, pool, draw, start):
            yield replace(step, values=encoder.learned.presented)

    def logits(self, encoder: Encoder, support: Tensor, query: Tensor) -> Tensor:
        ways, shots, width = support.shape
        # One example of each class after the other, so that no class lies far back.
        sequence = F.normalize(support.transpose(0, 1).reshape(ways * shots, width), dim=-1)
        labels = torch.arange(ways, device=support.device).repeat(shots)
        _, state, before = encoder.learned.along(sequence[None], labels[None])
        said, _ = encoder.learned(F.normalize(query, dim=-1), before.expand(len(query), -1), state.repeated(len(query)))
        return said


def presentation_order(labels: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Accuracy at the 1st, 2nd, 5th and 10th time that a class of a sequence appears."""
    number = np.array([(labels[: i + 1] == label).sum() for i, label in enumerate(labels)])
    right = labels == said
    return {f"accuracy_at_{k}": float(right[number == k].mean()) for k in PRESENTATIONS if (number == k).any()}
