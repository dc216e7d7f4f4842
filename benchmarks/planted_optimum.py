"""One-shot strategies on a problem with a planted optimum: in each layer, one of four operations is useful.

A text consists of words of its class and one random word for each layer. The embedding has a signal part, which
identifies the class, and one noise block per layer, which the random words fill. In each layer,

- the useful operation sets the layer's noise block to zero,
- the identity leaves it in place,
- the wrong operation sets the signal to zero instead, and
- the noise operation returns random numbers.

The seed decides which letter stands for which operation, so a strategy cannot know the answer from the names.

usage: python -m benchmarks.run planted_optimum
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.table import Table
from nas_meta import Architecture, ChoiceLayer, ChoiceSupernet, SearchSpace, Strategy
from nas_meta.core.objectives import Objective
from nas_meta.evaluation.progress import EvaluationSettings
from nas_meta.evaluation.trial import Evaluation
from nas_meta.learners.protonet import ProtoNet
from nas_meta.strategy.protocol import SearchContext
from nas_meta.tasks.episodes import EpisodeShape
from nas_meta.tasks.pool import Pool, Tasks
from nas_meta.tasks.source import SPLITS

LAYERS, BLOCK = 3, 8  # number of layers, and size of the noise block of each
SIGNAL = 2 * BLOCK  # size of the part of the embedding that identifies the class
CLASSES, WORDS, NOISE_WORDS, TEXTS = 20, 3, 40, 12
OPERATIONS = ("useful", "identity", "wrong", "noise")
LETTERS = "abcd"
SEEDS = tuple(range(10, 20))  # other seeds than those on which the options were chosen


class MaskedLinear(nn.Module):
    """Multiplies embeddings by a mask, then maps their signal part by a learned linear layer.

    Args:
        mask: ``[D]`` ones and zeros.
    """

    def __init__(self, mask: Tensor):
        super().__init__()
        self.register_buffer("mask", mask)
        self.linear = nn.Linear(SIGNAL, SIGNAL, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(SIGNAL) + 0.02 * torch.randn(SIGNAL, SIGNAL))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.mask
        return torch.cat([self.linear(x[..., :SIGNAL]), x[..., SIGNAL:]], dim=-1)


class Noise(nn.Module):
    """Random numbers with the standard deviation of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x) * x.detach().std()


def make(operation: str, layer: int) -> nn.Module:
    """Builds an operation for a layer; ``operation`` is a name in ``OPERATIONS``."""
    mask = torch.ones(SIGNAL + LAYERS * BLOCK)
    if operation == "useful":
        mask[SIGNAL + layer * BLOCK :][:BLOCK] = 0
    elif operation == "wrong":
        mask[:SIGNAL] = 0
    elif operation == "noise":
        return Noise()
    return MaskedLinear(mask)


class PlantedModel(nn.Module):
    """Frozen word embeddings, layers and a learned factor, which gives every path a parameter to train.

    Args:
        table: ``[words, D]`` word embeddings.
        layers: one module per layer.
    """

    def __init__(self, table: Tensor, layers: list[nn.Module]):
        super().__init__()
        self.words = nn.Embedding.from_pretrained(table.clone())
        self.layers = nn.ModuleList(layers)
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.words(input_ids)
        for layer in self.layers:
            x = layer(x)
        return x * self.factor


class Planted(SearchSpace):
    """Search space with a planted optimum.

    Args:
        seed: decides the meaning of the letters and the word embeddings.
    """

    def __init__(self, seed: int = 0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.meaning = [dict(zip(LETTERS, rng.permutation(OPERATIONS).tolist(), strict=True)) for _ in range(LAYERS)]
        self.table_of_words = word_table(rng)

    def choices(self) -> Mapping[str, tuple[str, ...]]:
        return {f"layer{i}": tuple(LETTERS) for i in range(LAYERS)}

    def build(self, architecture: Architecture) -> nn.Module:
        return self._model([make(self.meaning[i][architecture[f"layer{i}"]], i) for i in range(LAYERS)])

    def supernet(self) -> ChoiceSupernet:
        layers = [
            ChoiceLayer(f"layer{i}", {letter: make(operation, i) for letter, operation in self.meaning[i].items()})
            for i in range(LAYERS)
        ]
        return ChoiceSupernet(self._model(layers), self.build)

    @cached_property
    def answer(self) -> Architecture:
        """The planted architecture: the useful operation in every layer."""
        return Architecture(
            {f"layer{i}": next(k for k, v in m.items() if v == "useful") for i, m in enumerate(self.meaning)}
        )

    def _model(self, layers: list[nn.Module]) -> nn.Module:
        return PlantedModel(torch.from_numpy(self.table_of_words), layers)


def word_table(rng: np.random.Generator) -> np.ndarray:
    """Generates word embeddings ``[words, D]``.

    Words of a class lie close together in the signal part and are zero elsewhere; the random words of a layer fill only
    its noise block.
    """
    class_words = len(SPLITS) * CLASSES * WORDS
    table = np.zeros((class_words + LAYERS * NOISE_WORDS, SIGNAL + LAYERS * BLOCK), np.float32)
    centres = rng.normal(size=(len(SPLITS) * CLASSES, SIGNAL))
    table[:class_words, :SIGNAL] = np.repeat(centres, WORDS, axis=0) + 0.5 * rng.normal(size=(class_words, SIGNAL))
    for layer in range(LAYERS):
        rows = table[class_words + layer * NOISE_WORDS :][:NOISE_WORDS]
        rows[:, SIGNAL + layer * BLOCK :][:, :BLOCK] = 8 * rng.normal(size=(NOISE_WORDS, BLOCK))
    return table


def planted_tasks(seed: int) -> Tasks:
    """Generates texts with three words of their class and one random word for each layer."""
    rng = np.random.default_rng([seed, 1])
    first_noise = len(SPLITS) * CLASSES * WORDS
    pools = {}
    for s, split in enumerate(SPLITS):
        labels = np.repeat(np.arange(CLASSES), TEXTS)
        own = (s * CLASSES + labels)[:, None] * WORDS + rng.integers(WORDS, size=(len(labels), 3))
        noise = first_noise + np.arange(LAYERS) * NOISE_WORDS + rng.integers(NOISE_WORDS, size=(len(labels), LAYERS))
        tokens = np.concatenate([own, noise], axis=1)
        length = tokens.shape[1]
        pools[split] = Pool(
            classes=[f"{split} {c}" for c in range(CLASSES)],
            texts=[str(i) for i in range(len(labels))],
            labels=labels,
            tokens=tokens.ravel(),
            offsets=np.arange(len(labels) + 1) * length,
            words=np.tile(np.arange(length), len(labels)),
        )
    return Tasks(pools)


def evaluation_of(space: SearchSpace, seed: int) -> Evaluation:
    """Evaluation of trials on the planted problem: 5-way 1-shot episodes, nearest centroid."""
    learner = ProtoNet(ProtoNet.Options(steps=0, lr=5e-4))
    return Evaluation(space, learner, planted_tasks(seed), EpisodeShape(5, 1, 2), EvaluationSettings(seed=seed))


@dataclass(frozen=True)
class Found:
    """First proposal of a strategy.

    Attributes:
        architecture: the proposed architecture.
        right: number of layers with the useful operation.
        seconds: duration of the search in seconds.
    """

    architecture: Architecture
    right: int
    seconds: float


def find(strategy: type[Strategy], seed: int, **options: Any) -> Found:
    """Runs a one-shot strategy on a planted problem.

    Args:
        strategy: class of the strategy.
        seed: seed of the problem and of the strategy.
        **options: options of the strategy.
    """
    space = Planted(seed)
    context = SearchContext(space, [Objective("accuracy")], trials=1, workers=1, seed=seed)
    search = strategy(context, strategy.Options(**options))
    job, started = search.job(), time.perf_counter()
    progress = evaluation_of(space, seed).run(job)
    try:
        while True:
            next(progress)
    except StopIteration as end:
        search.receive(end.value.findings, end.value.weights)
    proposal = search.ask()
    right = sum(proposal[name] == value for name, value in space.answer.values.items())
    return Found(proposal, right, time.perf_counter() - started)


def accuracy_of(space: Planted, architecture: Architecture, seed: int) -> float:
    """Meta-validation accuracy of an architecture without any training."""
    evaluation = evaluation_of(space, seed)
    encoder = evaluation.encoder(space.build(architecture))
    return float(evaluation.accuracies(encoder, "meta-validation", 40).mean())


def measure() -> Table:
    """Share of seeds on which the optimum is found, one row per strategy."""
    from strategies.one_shot.darts import DARTS, GumbelDARTS
    from strategies.one_shot.enas import ENAS
    from strategies.one_shot.proxyless import ProxylessNAS
    from strategies.one_shot.spos import SPOS

    torch.set_num_threads(1)
    strategies: list[tuple[str, type[Strategy], dict[str, Any]]] = [
        ("darts, first order", DARTS, {"steps": 80, "arch_lr": 0.05}),
        ("darts, second order", DARTS, {"steps": 80, "arch_lr": 0.05, "order": 2}),
        ("gumbel-darts", GumbelDARTS, {"steps": 250, "arch_lr": 0.05, "warmup": 0, "last_temperature": 1}),
        ("proxyless", ProxylessNAS, {"steps": 150, "arch_lr": 0.05, "warmup": 0}),
        ("enas", ENAS, {"steps": 100, "candidates": 20, "reward_episodes": 2}),
        ("spos", SPOS, {"steps": 100, "generations": 4, "population": 12}),
    ]
    rows = []
    for name, strategy, options in strategies:
        found = [find(strategy, seed, **options) for seed in SEEDS]
        rows.append([
            name, ", ".join(f"{key} {value:g}" for key, value in options.items()),
            f"{sum(f.right == LAYERS for f in found)} of {len(SEEDS)}",
            f"{np.mean([f.right for f in found]):.2f} of {LAYERS}", f"{np.mean([f.seconds for f in found]):.1f} s",
        ])  # fmt: skip
    # Accuracies of the planted optimum, and of the best architecture that differs from it in a given layer.
    optima, neighbours = [], []
    for seed in SEEDS:
        space = Planted(seed)
        optima.append(accuracy_of(space, space.answer, seed))
        for name, letter in space.answer.values.items():
            changed = [{**space.answer.values, name: v} for v in LETTERS if v != letter]
            neighbours.append(max(accuracy_of(space, Architecture(values), seed) for values in changed))
    return Table(
        ("strategy", "options", "found", "correct operations", "time per seed"),
        rows,
        f"{LAYERS} layers with {len(OPERATIONS)} operations each. The planted architecture has "
        f"{100 * np.mean(optima):.0f} % accuracy before any training (5-way 1-shot); with one layer's operation "
        f"replaced by the best of the others, it has {100 * np.mean(neighbours):.0f} %. A random choice finds it once "
        f"in {len(OPERATIONS) ** LAYERS} times; SPOS evaluates at most {4 * 12} of these architectures with inherited "
        "weights.",
    )
