"""Sinusoid regression, section 5.1 of the MAML paper (Finn, Abbeel and Levine 2017), with nas-meta's own learner.

A task is y = A sin(x + φ), A from 0.1 to 5, φ from 0 to π, x from -5 to 5; the network has two hidden layers of 40
units. After meta-training, it sees 10 points of a new sinusoid and takes gradient steps on them. The other network of
the paper's figure 2 was pretrained on all tasks at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.table import Table
from nas_meta.learners.maml import MAML, MAMLOptions
from nas_meta.learners.training.options import TrainingOptions
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import interval95
from nas_meta.tasks.episodes import Episode

STEPS, META_BATCH, POINTS = 20_000, 25, 10
RATE = 0.001  # of a gradient step on a task, as in the authors' code
TEST_TASKS = 600


@dataclass(frozen=True)
class Sinusoids:
    """Points of many tasks, in the place of a pool of texts or images."""

    x: np.ndarray
    modality = "numbers"

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.ones(len(self.x), dtype=int)

    def inputs(self, indices: np.ndarray, batch: None = None) -> dict[str, np.ndarray]:
        return {"input": self.x[indices]}


@dataclass(frozen=True)
class Regression(Episode):
    """A task whose targets are numbers."""

    y_support: np.ndarray
    y_query: np.ndarray

    @property
    def support_labels(self) -> np.ndarray:
        return self.y_support

    @property
    def labels(self) -> np.ndarray:
        return self.y_query


class Network(Encoder):
    """Numbers ``[B, 1]`` to the 40 units of the second hidden layer; the head is the learner's."""

    width = 40

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU()))

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


def draw(pool: Sinusoids, seed: int, index: int) -> Regression:
    """Ten points to learn from and ten to be judged on, of one sinusoid."""
    rng = np.random.default_rng([seed, index])
    amplitude, phase = rng.uniform(0.1, 5.0), rng.uniform(0.0, math.pi)
    where = rng.integers(len(pool.x), size=(2, 1, POINTS))
    y = (amplitude * np.sin(pool.x[where] + phase)).astype(np.float32).reshape(2, POINTS, 1)
    return Regression(where[0], where[1], *y)


def meta_trained(pool: Sinusoids, inner_steps: int, seed: int, steps: int) -> tuple[Network, float]:
    """A network after meta-training; with no inner steps it is trained on all tasks at once. Also the seconds."""
    torch.manual_seed(seed)
    learner = MAML(options(inner_steps, steps=steps))
    network = Network()
    network.learned = learner.learned(network, 1)
    started = time.perf_counter()
    for _ in learner.meta_train(network, pool, lambda i: draw(pool, seed, i)):
        continue
    return network, time.perf_counter() - started


def options(inner_steps: int, steps: int = 0) -> MAMLOptions:
    return MAMLOptions(
        steps=steps, meta_batch=META_BATCH, inner_steps=inner_steps, inner_lr=RATE, head_lr=None, scale=None, lr=1e-3,
        learned_lr=1e-3, training=TrainingOptions(weight_decay=0, clip=1e9),
    )  # fmt: skip


def errors(network: Network, pool: Sinusoids, steps: int, tasks: int = TEST_TASKS) -> np.ndarray:
    """Mean squared error on each of the test tasks after gradient steps on ten points."""
    learner = MAML(options(steps))
    network.eval()

    def error(task: Regression) -> float:
        return float(np.square(learner.classify(network, pool, task).numpy() - task.labels).mean())

    return np.array([error(draw(pool, 10**6, i)) for i in range(tasks)])


def shown(values: Sequence[float] | np.ndarray) -> str:
    return f"{np.mean(values):.2f} ± {interval95(np.asarray(values)):.2f}"


def measure(steps: int = STEPS) -> Table:
    pool = Sinusoids(np.linspace(-5, 5, 100_001, dtype=np.float32)[:, None])
    rows = []
    for name, inner_steps in (("MAML, one inner step", 1), ("pretrained on all tasks", 0)):
        network, seconds = meta_trained(pool, inner_steps, seed=1, steps=steps)
        rows.append([name, *(shown(errors(network, pool, n)) for n in (0, 1, 10)), f"{seconds:.0f} s"])
    return Table(
        ("network", "before", "after 1 step", "after 10 steps", "meta-training"),
        rows,
        f"Mean squared error with its 95 % interval over {TEST_TASKS} new sinusoids, from {POINTS} points each, "
        f"with learning rate {RATE}; {steps:,} meta-training steps of {META_BATCH} tasks.",
    )
