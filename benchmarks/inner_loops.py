"""Meta-training steps of MAML and Reptile beside the plain loop with ``copy.deepcopy`` that a user would write.

Five inner steps, meta-batches of four 5-way tasks of ICD-10-CM, an encoder of two layers, one thread. Both sides move
the same weights (all but the token and position tables, and a linear head), start from the same numbers and see the
same episodes, so that they must agree; dropout is off. They take turns, seconds are medians. What users write first
moves the tables too, because every parameter of the model is handed to the optimiser: that is measured beside it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.table import Table
from nas_meta.learners.maml import MAML, MAMLOptions
from nas_meta.learners.reptile import Reptile, ReptileOptions
from nas_meta.learners.training.options import TrainingOptions
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode, EpisodeShape, episode
from nas_meta.tasks.pool import Pool
from nas_meta.tasks.source import SPLITS

INNER_STEPS, TASKS, WAYS, QUERIES = 5, 4, 5, 5
PLAIN_TRAINING = TrainingOptions(weight_decay=0, clip=1e9, dropout=0.0)
STEPS, ROUNDS = 4, 3


@dataclass(frozen=True)
class Size:
    """An encoder of two layers."""

    name: str
    width: int
    heads: int
    neurons: int


SMALL, WIDE = Size("64 wide", 64, 2, 256), Size("384 wide, as MiniLM", 384, 12, 1536)
# Size, shots, and whether the plain loop moves the token and position tables too.
CASES = ((WIDE, 1, False), (WIDE, 5, False), (SMALL, 1, False), (WIDE, 1, True))


def pool_of_texts() -> Pool:
    """The meta-train texts of ICD-10-CM."""
    from nas_meta.config.components import prepare
    from nas_meta.config.resolved import resolve

    return prepare(resolve({}))[1][SPLITS[0]]


def encoder_of(size: Size, vocabulary: int, attention: str) -> Encoder:
    """A two-layer BERT from random numbers; ``attention`` names the implementation."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=size.width, num_hidden_layers=2, num_attention_heads=size.heads,
        intermediate_size=size.neurons, max_position_embeddings=64, attn_implementation=attention,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return Encoder(BertModel(config, add_pooling_layer=False))


# The plain program ----------------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """A model, mean pooling and a linear head."""

    def __init__(self, model: nn.Module, head: nn.Linear):
        super().__init__()
        self.model, self.head = model, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        z = (states * mask).sum(1) / mask.sum(1)
        return self.head(10**0.5 * F.normalize(z, dim=-1))


def padded(pool: Pool, indices: np.ndarray) -> tuple[Tensor, ...]:
    """Texts padded to the longest of them, as a tokenizer does."""
    return tuple(torch.from_numpy(a) for a in pool.batch(indices))


def trained_parameters(classifier: Classifier) -> dict[str, nn.Parameter]:
    return {name: p for name, p in classifier.named_parameters() if p.requires_grad}


def plain_maml(classifier: Classifier, pool: Pool, tasks: Sequence[Episode], rate: float) -> None:
    """Second order: the weights of each step as a dictionary, the graph kept."""
    for task in tasks:
        weights = trained_parameters(classifier)
        support, targets = padded(pool, task.support.ravel()), torch.from_numpy(task.support_labels)
        for _ in range(INNER_STEPS):
            loss = F.cross_entropy(functional_call(classifier, weights, support), targets)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {n: w - rate * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
        outputs = functional_call(classifier, weights, padded(pool, task.query.ravel()))
        (F.cross_entropy(outputs, torch.from_numpy(task.labels)) / len(tasks)).backward()


def plain_fomaml(classifier: Classifier, pool: Pool, tasks: Sequence[Episode], rate: float) -> None:
    """First order: a copy of the model for each task, its gradient added to the original."""
    for task in tasks:
        copied = copy.deepcopy(classifier)
        moving = list(trained_parameters(copied).values())
        optimizer = torch.optim.SGD(moving, lr=rate)
        support, targets = padded(pool, task.support.ravel()), torch.from_numpy(task.support_labels)
        for _ in range(INNER_STEPS):
            optimizer.zero_grad()
            F.cross_entropy(copied(*support), targets).backward()
            optimizer.step()
        loss = F.cross_entropy(copied(*padded(pool, task.query.ravel())), torch.from_numpy(task.labels)) / len(tasks)
        gradients = torch.autograd.grad(loss, moving)
        for parameter, gradient in zip(trained_parameters(classifier).values(), gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def plain_maml_steps(pool: Pool, draw: Callable[[int], Episode], options: MAMLOptions) -> Callable[[Classifier], None]:
    def train(classifier: Classifier) -> None:
        body, head = split(classifier)
        groups = [{"params": body, "lr": options.lr}, {"params": head, "lr": options.learned_lr}]
        optimizer = torch.optim.AdamW(groups, weight_decay=0)
        add = plain_fomaml if options.first_order else plain_maml
        for step in range(options.steps):
            optimizer.zero_grad()
            add(classifier, pool, [draw(step * TASKS + i) for i in range(TASKS)], options.inner_lr)
            optimizer.step()

    return train


def plain_reptile_steps(
    pool: Pool, draw: Callable[[int], Episode], options: ReptileOptions
) -> Callable[[Classifier], None]:
    def train(classifier: Classifier) -> None:
        state = None
        for step in range(options.steps):
            ends = []
            for i in range(step * TASKS, (step + 1) * TASKS):
                task, rng = draw(i), np.random.default_rng(i)
                labels = np.concatenate([task.support_labels, task.labels])
                copied = copy.deepcopy(classifier)
                body, head = split(copied)
                groups = [{"params": body, "lr": options.lr}, {"params": head, "lr": options.learned_lr}]
                optimizer = torch.optim.Adam(groups, betas=(0.0, options.beta2))
                if state is not None:
                    optimizer.load_state_dict(state)
                for _ in range(INNER_STEPS):
                    rows = rng.choice(len(labels), options.inner_batch, replace=False)
                    optimizer.zero_grad()
                    outputs = copied(*padded(pool, task.indices[rows]))
                    F.cross_entropy(outputs, torch.from_numpy(labels[rows])).backward()
                    optimizer.step()
                state = optimizer.state_dict()
                ends.append([*body, *head])
            outer = options.outer_lr * (1 - step / options.steps)
            with torch.no_grad():
                body, head = split(classifier)
                for parameter, *reached in zip([*body, *head], *ends, strict=True):
                    parameter += outer * (torch.stack(reached).mean(0) - parameter)

    return train


def split(classifier: Classifier) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that learn, of the body and of the head."""
    return [p for p in classifier.model.parameters() if p.requires_grad], list(classifier.head.parameters())


# Both, side by side ---------------------------------------------------------------------------------------------------


Pair = tuple[str, MAML | Reptile, Callable[[Classifier], None]]


def pairs(pool: Pool, draw: Callable[[int], Episode]) -> list[Pair]:
    """Our learners and the plain program's."""
    shared = {"steps": STEPS, "inner_steps": INNER_STEPS, "meta_batch": TASKS, "training": PLAIN_TRAINING}
    maml, fomaml = (MAMLOptions(**shared, head_lr=None, first_order=first) for first in (False, True))
    reptile = ReptileOptions(**shared)
    return [
        ("MAML", MAML(maml), plain_maml_steps(pool, draw, maml)),
        ("MAML, first order", MAML(fomaml), plain_maml_steps(pool, draw, fomaml)),
        ("Reptile", Reptile(reptile), plain_reptile_steps(pool, draw, reptile)),
    ]


def compared(pair: Pair, pool: Pool, draw: Callable[[int], Episode], size: Size, tables: bool) -> list[str]:
    """Seconds of a meta-training step of both, and how far apart the weights are afterwards."""
    _, learner, plain = pair
    vocabulary = int(pool.tokens.max()) + 1
    second_order = isinstance(learner, MAML) and not learner.options.first_order
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS):
        encoder = encoder_of(size, vocabulary, "sdpa")
        encoder.learned = learner.learned(encoder, WAYS)
        head = copy.deepcopy(encoder.learned["head"].state_dict())
        started = time.perf_counter()
        for _ in learner.meta_train(encoder, pool, draw):
            continue
        seconds["ours"].append((time.perf_counter() - started) / STEPS)

        # Fused attention has no second derivative.
        model = encoder_of(size, vocabulary, "eager" if second_order else "sdpa").model
        classifier = Classifier(model, nn.Linear(size.width, WAYS))
        classifier.head.load_state_dict(head)
        for name, parameter in classifier.model.named_parameters():
            parameter.requires_grad_(tables or "_embeddings.weight" not in name)
        started = time.perf_counter()
        plain(classifier)
        seconds["plain"].append((time.perf_counter() - started) / STEPS)
    ours, theirs = (median(seconds[who]) for who in ("ours", "plain"))
    row = [f"{1000 * theirs:.0f} ms", f"{1000 * ours:.0f} ms", f"{theirs / ours:.2f}"]
    if tables:
        return [*row, "other weights move"]
    start = encoder_of(size, vocabulary, "sdpa").model
    return [*row, f"{distance(encoder.model, classifier.model):.0e} of {distance(encoder.model, start):.0e}"]


def distance(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of two weights."""
    values = other.state_dict()
    return max(float((value - values[name]).abs().max()) for name, value in one.state_dict().items())


def measure() -> Table:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool, rows = pool_of_texts(), []
    for size, shots, tables in CASES:
        shape = EpisodeShape(WAYS, shots, QUERIES)

        def draw(index: int, shape: EpisodeShape = shape) -> Episode:
            return episode(pool, shape, 1, index)

        case = f"{size.name}, {shots} shot{'s' * (shots > 1)}{', plain loop moves the tables too' * tables}"
        rows += [[pair[0], case, *compared(pair, pool, draw, size, tables)] for pair in pairs(pool, draw)]
    torch.set_num_threads(threads)
    return Table(
        ("learner", "two layers", "plain loop", "nas-meta", "times faster", "weights apart, of how far they moved"),
        rows,
        f"One meta-training step: {TASKS} tasks, {INNER_STEPS} inner steps, {WAYS} ways, {QUERIES} queries, 1 thread; "
        f"medians of {ROUNDS} runs of {STEPS} steps, the weights compared after those.",
    )
