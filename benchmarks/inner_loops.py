"""Meta-training steps of MAML and Reptile, against the plain loop with ``copy.deepcopy`` that a user would write.

A step has a meta-batch of four 5-way tasks of ICD-10-CM and five inner steps, on an encoder of two layers and one
thread. Both sides move the same weights (all but the token and position tables, and a linear head), start from the same
values and see the same episodes, with dropout off, so their results must agree. They take turns; times are medians. The
loop that users write first also moves the tables, because it hands every parameter of the model to the optimiser; it is
measured as well.

usage: python -m benchmarks.run inner_loops
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
    """Size of a two-layer encoder.

    Attributes:
        name: description in the table.
        width: size of the token states.
        heads: number of attention heads.
        neurons: width of the feed-forward layers.
    """

    name: str
    width: int
    heads: int
    neurons: int


SMALL, WIDE = Size("64 wide", 64, 2, 256), Size("384 wide, like MiniLM", 384, 12, 1536)
# Size, shots, and whether the plain loop also moves the token and position tables.
CASES = ((WIDE, 1, False), (WIDE, 5, False), (SMALL, 1, False), (WIDE, 1, True))


def pool_of_texts() -> Pool:
    """The meta-train texts of ICD-10-CM."""
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve

    return load_problem(resolve({}))[1][SPLITS[0]]


def encoder_of(size: Size, vocabulary: int, attention: str) -> Encoder:
    """Builds a randomly initialised two-layer BERT.

    Args:
        size: its size.
        vocabulary: number of tokens.
        attention: transformers' name of the attention implementation.
    """
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
    """A model with mean pooling and a linear head."""

    def __init__(self, model: nn.Module, head: nn.Linear):
        super().__init__()
        self.model, self.head = model, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        z = (states * mask).sum(1) / mask.sum(1)
        return self.head(10**0.5 * F.normalize(z, dim=-1))


def padded(pool: Pool, indices: np.ndarray) -> tuple[Tensor, ...]:
    """Token ids and attention mask of texts, padded to the longest as a tokenizer does."""
    return tuple(torch.from_numpy(a) for a in pool.batch(indices))


def trained_parameters(classifier: Classifier) -> dict[str, nn.Parameter]:
    """Parameters that learn, by name."""
    return {name: p for name, p in classifier.named_parameters() if p.requires_grad}


def plain_maml(classifier: Classifier, pool: Pool, tasks: Sequence[Episode], rate: float) -> None:
    """Adds the second-order MAML gradient of some tasks to the classifier's gradients.

    The adapted weights are a dictionary, and the graph of every inner step is kept.

    Args:
        classifier: model to be meta-trained.
        pool: texts of the tasks.
        tasks: one meta-batch.
        rate: learning rate of the inner loop.
    """
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
    """Adds the first-order MAML gradient of some tasks to the classifier's gradients.

    Each task trains a copy of the model, whose gradient is added to the original. For the arguments, see
    :func:`plain_maml`.
    """
    for task in tasks:
        adapted = copy.deepcopy(classifier)
        parameters = list(trained_parameters(adapted).values())
        optimizer = torch.optim.SGD(parameters, lr=rate)
        support, targets = padded(pool, task.support.ravel()), torch.from_numpy(task.support_labels)
        for _ in range(INNER_STEPS):
            optimizer.zero_grad()
            F.cross_entropy(adapted(*support), targets).backward()
            optimizer.step()
        loss = F.cross_entropy(adapted(*padded(pool, task.query.ravel())), torch.from_numpy(task.labels)) / len(tasks)
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(trained_parameters(classifier).values(), gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def plain_maml_steps(pool: Pool, draw: Callable[[int], Episode], options: MAMLOptions) -> Callable[[Classifier], None]:
    """Plain meta-training with MAML.

    Args:
        pool: texts of the tasks.
        draw: function that returns the episode with an index.
        options: the options with which nas-meta's learner runs.

    Returns:
        A function that meta-trains a classifier in place.
    """

    def train(classifier: Classifier) -> None:
        body, head = split(classifier)
        groups = [{"params": body, "lr": options.lr}, {"params": head, "lr": options.learned_lr}]
        optimizer = torch.optim.AdamW(groups, weight_decay=0)
        add_gradients = plain_fomaml if options.first_order else plain_maml
        for step in range(options.steps):
            optimizer.zero_grad()
            add_gradients(classifier, pool, [draw(step * TASKS + i) for i in range(TASKS)], options.inner_lr)
            optimizer.step()

    return train


def plain_reptile_steps(
    pool: Pool, draw: Callable[[int], Episode], options: ReptileOptions
) -> Callable[[Classifier], None]:
    """Plain meta-training with Reptile; for arguments and result, see :func:`plain_maml_steps`."""

    def train(classifier: Classifier) -> None:
        state = None
        for step in range(options.steps):
            adapted_weights = []
            for i in range(step * TASKS, (step + 1) * TASKS):
                task, rng = draw(i), np.random.default_rng(i)
                labels = np.concatenate([task.support_labels, task.labels])
                adapted = copy.deepcopy(classifier)
                body, head = split(adapted)
                groups = [{"params": body, "lr": options.lr}, {"params": head, "lr": options.learned_lr}]
                optimizer = torch.optim.Adam(groups, betas=(0.0, options.beta2))
                if state is not None:
                    optimizer.load_state_dict(state)
                for _ in range(INNER_STEPS):
                    rows = rng.choice(len(labels), options.inner_batch, replace=False)
                    optimizer.zero_grad()
                    outputs = adapted(*padded(pool, task.indices[rows]))
                    F.cross_entropy(outputs, torch.from_numpy(labels[rows])).backward()
                    optimizer.step()
                state = optimizer.state_dict()
                adapted_weights.append([*body, *head])
            outer = options.outer_lr * (1 - step / options.steps)
            with torch.no_grad():
                body, head = split(classifier)
                for parameter, *of_tasks in zip([*body, *head], *adapted_weights, strict=True):
                    parameter += outer * (torch.stack(of_tasks).mean(0) - parameter)

    return train


def split(classifier: Classifier) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that learn: those of the body, and those of the head."""
    return [p for p in classifier.model.parameters() if p.requires_grad], list(classifier.head.parameters())


# Comparison -----------------------------------------------------------------------------------------------------------


Pair = tuple[str, MAML | Reptile, Callable[[Classifier], None]]


def pairs(pool: Pool, draw: Callable[[int], Episode]) -> list[Pair]:
    """Names, nas-meta's learners and the plain loops that correspond to them."""
    shared = {"steps": STEPS, "inner_steps": INNER_STEPS, "meta_batch": TASKS, "training": PLAIN_TRAINING}
    maml, fomaml = (MAMLOptions(**shared, head_lr=None, first_order=first) for first in (False, True))
    reptile = ReptileOptions(**shared)
    return [
        ("MAML", MAML(maml), plain_maml_steps(pool, draw, maml)),
        ("MAML, first order", MAML(fomaml), plain_maml_steps(pool, draw, fomaml)),
        ("Reptile", Reptile(reptile), plain_reptile_steps(pool, draw, reptile)),
    ]


def compare(pair: Pair, pool: Pool, draw: Callable[[int], Episode], size: Size, tables: bool) -> list[str]:
    """Runs a learner and its plain loop in turns.

    Args:
        pair: a result of :func:`pairs`.
        pool: texts of the tasks.
        draw: function that returns the episode with an index.
        size: size of the encoder.
        tables: whether the plain loop also moves the token and position tables.

    Returns:
        Table cells: time of a meta-training step of the plain loop and of nas-meta, their ratio, and how far apart the
        weights are afterwards.
    """
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

        # torch's fused attention has no second derivative.
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
        return [*row, "different weights move"]
    start = encoder_of(size, vocabulary, "sdpa").model
    return [*row, f"{distance(encoder.model, classifier.model):.0e} of {distance(encoder.model, start):.0e}"]


def distance(one: nn.Module, other: nn.Module) -> float:
    """Largest absolute difference between corresponding weights of two models."""
    values = other.state_dict()
    return max(float((value - values[name]).abs().max()) for name, value in one.state_dict().items())


def measure() -> Table:
    """Times and weight differences, one row per case and learner."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool, rows = pool_of_texts(), []
    for size, shots, tables in CASES:
        shape = EpisodeShape(WAYS, shots, QUERIES)

        def draw(index: int, shape: EpisodeShape = shape) -> Episode:
            return episode(pool, shape, 1, index)

        case = f"{size.name}, {shots} shot{'s' * (shots > 1)}{', plain loop also moves the tables' * tables}"
        rows += [[pair[0], case, *compare(pair, pool, draw, size, tables)] for pair in pairs(pool, draw)]
    torch.set_num_threads(threads)
    return Table(
        ("learner", "two-layer encoder", "plain loop", "nas-meta", "speed-up", "weight difference, of distance moved"),
        rows,
        f"One meta-training step: {TASKS} tasks, {INNER_STEPS} inner steps, {WAYS} ways, {QUERIES} queries, 1 thread; "
        f"medians of {ROUNDS} runs of {STEPS} steps, after which the weights are compared.",
    )
