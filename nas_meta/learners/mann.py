"""Memory-augmented network (Santoro et al. 2016, "Meta-Learning with Memory-Augmented Neural Networks").

An episode is a sequence: at step t the network reads embedding x_t and the label y_{t-1} of the previous step, and
predicts y_t. Labels are shuffled between episodes, so that the network must bind them to examples in its memory. An
LSTM controller emits keys k_t. K is the cosine similarity, γ a decay, n the number of reads, and m(v, n) the n-th
smallest element of v (section 3):

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
"""Presentations of a class at which the training accuracy is reported."""


class MANNOptions(LearnerOptions):
    """Options of the memory-augmented network; the default sizes are the paper's."""

    slots: int = Field(128, ge=1, description="number of rows of the memory")
    memory_width: int = Field(40, ge=1, description="width of a row of the memory")
    hidden: int = Field(200, ge=1, description="hidden units of the LSTM controller")
    reads: int = Field(4, ge=1, description="number of read heads")
    decay: float = Field(0.95, gt=0, lt=1, description="decay γ of the usage weights per step")


@dataclass(frozen=True)
class State:
    """The state of the memory network between two steps of B sequences.

    Attributes:
        memory: M ``[B, slots, memory_width]``.
        read: wʳ ``[B, reads, slots]``, the read weights of the last step.
        least: wˡᵘ ``[B, reads, slots]``, the least-used weights of the last step.
        usage: wᵘ ``[B, slots]``, the usage weights.
        hidden: ``[B, hidden]``, the hidden state of the controller.
        cell: ``[B, hidden]``, the cell state of the controller.
    """

    memory: Tensor
    read: Tensor
    least: Tensor
    usage: Tensor
    hidden: Tensor
    cell: Tensor

    def repeated(self, times: int) -> State:
        """Return the state of one sequence as the initial state of several.

        Args:
            times: B, the number of sequences.
        """
        return State(*(getattr(self, n).expand(times, *getattr(self, n).shape[1:]) for n in self.__dataclass_fields__))


def least_used(usage: Tensor, reads: int) -> Tensor:
    """Compute the least-used weights wˡᵘ: head j selects the j-th least used slot.

    Args:
        usage: ``[B, slots]``, the usage weights.
        reads: The number of read heads.

    Returns:
        ``[B, reads, slots]``, one-hot over the slots.
    """
    order = usage.argsort(dim=1, stable=True)[:, :reads]
    return F.one_hot(order, usage.shape[1]).to(usage.dtype)


class MemoryNetwork(nn.Module):
    """An LSTM controller with an external memory, least-recently-used access and a linear output.

    Args:
        width: D, the width of an embedding.
        ways: N, the number of classes.
        options: The sizes of the network.

    Attributes:
        presented: The accuracy by presentation of the last training episode; see :func:`accuracy_by_presentation`.
    """

    def __init__(self, width: int, ways: int, options: MANNOptions):
        super().__init__()
        self.options, self.ways = options, ways
        self.controller = nn.LSTMCell(width + ways, options.hidden)
        self.keys = nn.Linear(options.hidden, options.reads * options.memory_width)
        self.gates = nn.Parameter(torch.zeros(options.reads))
        self.output = nn.Linear(options.hidden + options.reads * options.memory_width, ways)

    def start(self, like: Tensor) -> State:
        """Return the state before a sequence, with an almost empty memory.

        Args:
            like: A tensor with the device and the type of the state.
        """
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

    def forward(self, x: Tensor, previous_label: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one step.

        Args:
            x: ``[B, D]``, the embeddings of this step's examples.
            previous_label: ``[B, N]``, the one-hot labels of the previous step; zeros in the first step.
            state: The state after the previous step.

        Returns:
            Logits ``[B, N]``, and the state after this step.
        """
        o = self.options
        hidden, cell = self.controller(torch.cat([x, previous_label], 1), (state.hidden, state.cell))
        keys = torch.tanh(self.keys(hidden)).view(len(x), o.reads, o.memory_width)
        read = torch.softmax(F.cosine_similarity(keys[:, :, None], state.memory[:, None], dim=-1), dim=-1)
        gate = torch.sigmoid(self.gates)[:, None]
        write = gate * state.read + (1 - gate) * state.least
        # Head 0 selects the least used slot, and only that one is set to zero.
        memory = state.memory * (1 - state.least[:, 0])[..., None] + write.transpose(1, 2) @ keys
        usage = o.decay * state.usage + (read + write).sum(1)
        features = torch.cat([hidden, (read @ memory).flatten(1)], dim=1)
        return self.output(features), State(memory, read, least_used(usage, o.reads), usage, hidden, cell)

    def run(self, z: Tensor, labels: Tensor) -> tuple[Tensor, State, Tensor]:
        """Run whole sequences from the initial state.

        Args:
            z: ``[B, T, D]``, the embeddings.
            labels: ``[B, T]``, the labels.

        Returns:
            Logits ``[B, T, N]``, the state after the last step, and the one-hot labels ``[B, N]`` of the last step.
        """
        state = self.start(z).repeated(len(z))
        previous = z.new_zeros(len(z), self.ways)
        steps = []
        for x, label in zip(z.unbind(1), labels.unbind(1), strict=True):
            logits, state = self(x, previous, state)
            steps.append(logits)
            previous = F.one_hot(label, self.ways).to(z.dtype)
        return torch.stack(steps, 1), state, previous


class MANN(MetricLearner):
    """Memory-augmented network: reads an episode as a sequence and stores its examples in a memory."""

    Options = MANNOptions
    any_ways = False

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        return MemoryNetwork(encoder.width, ways, self.options)

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Compute the mean cross-entropy over all steps of the shuffled episode; also set ``presented``."""
        network = encoder.learned
        labels = np.concatenate([episode.support_labels, episode.labels])
        order = torch.randperm(len(labels)).numpy()
        z = F.normalize(encoder.embed(pool, episode.indices[order]), dim=-1)
        target = torch.from_numpy(labels[order]).to(z.device)
        logits = network.run(z[None], target[None])[0][0]
        network.presented = accuracy_by_presentation(labels[order], logits.argmax(1).cpu().numpy())
        return F.cross_entropy(logits, target)

    def meta_train(
        self, encoder: Encoder, pool: Pool, draw: Callable[[int], Episode], start: Mapping[str, Any] | None = None
    ) -> Iterator[Step]:
        for step in super().meta_train(encoder, pool, draw, start):
            yield replace(step, values=encoder.learned.presented)

    def logits(self, encoder: Encoder, support: Tensor, query: Tensor) -> Tensor:
        ways, shots, width = support.shape
        # The classes alternate, so that the last example of every class is recent.
        sequence = F.normalize(support.transpose(0, 1).reshape(ways * shots, width), dim=-1)
        labels = torch.arange(ways, device=support.device).repeat(shots)
        _, state, previous = encoder.learned.run(sequence[None], labels[None])
        many = len(query)
        logits, _ = encoder.learned(F.normalize(query, dim=-1), previous.expand(many, -1), state.repeated(many))
        return logits


def accuracy_by_presentation(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Compute the accuracy at the 1st, 2nd, 5th and 10th presentation of a class in a sequence.

    At the first presentation it is at chance level; a network that uses its memory is better at every further one.

    Args:
        labels: ``[T]``, the classes of a sequence.
        predicted: ``[T]``, the predicted classes.

    Returns:
        ``accuracy_at_1`` and so on, each from 0 to 1; presentations that do not occur are missing.
    """
    number = np.array([(labels[: i + 1] == label).sum() for i, label in enumerate(labels)])
    correct = labels == predicted
    return {f"accuracy_at_{k}": float(correct[number == k].mean()) for k in PRESENTATIONS if (number == k).any()}
