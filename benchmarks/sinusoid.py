"""Sinusoid regression from section 5.1 of the MAML paper (Finn, Abbeel and Levine 2017), with nas-meta's ``maml``.

A task is y = A sin(x + φ) with A from 0.1 to 5, φ from 0 to π and x from -5 to 5. The network has two hidden layers of
40 units. After meta-training, it sees 10 points of a new sinusoid and takes gradient steps on them. The baseline is the
other network of the paper's figure 2, which is pretrained on all tasks at once.

usage: python -m benchmarks.run sinusoid
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
RATE = 0.001  # learning rate of a gradient step on a task, as in the authors' code
TEST_TASKS = 600


@dataclass(frozen=True)
class Sinusoids:
    """Stand-in for a pool of texts or images: the points at which sinusoids are evaluated.

    Attributes:
        x: ``[points, 1]`` inputs.
    """

    x: np.ndarray
    modality = "numbers"

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.ones(len(self.x), dtype=int)

    def inputs(self, indices: np.ndarray, batch: None = None) -> dict[str, np.ndarray]:
        return {"input": self.x[indices]}


@dataclass(frozen=True)
class Regression(Episode):
    """A task whose targets are numbers instead of class labels.

    Attributes:
        y_support: ``[shots, 1]`` targets of the support set.
        y_query: ``[queries, 1]`` targets of the query set.
    """

    y_support: np.ndarray
    y_query: np.ndarray

    @property
    def support_labels(self) -> np.ndarray:
        return self.y_support

    @property
    def labels(self) -> np.ndarray:
        return self.y_query


class Network(Encoder):
    """Maps numbers ``[B, 1]`` to the second hidden layer ``[B, 40]``; the learner adds the head."""

    width = 40

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU()))

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


def draw(pool: Sinusoids, seed: int, index: int) -> Regression:
    """Task of one sinusoid, with ten support and ten query points."""
    rng = np.random.default_rng([seed, index])
    amplitude, phase = rng.uniform(0.1, 5.0), rng.uniform(0.0, math.pi)
    where = rng.integers(len(pool.x), size=(2, 1, POINTS))
    y = (amplitude * np.sin(pool.x[where] + phase)).astype(np.float32).reshape(2, POINTS, 1)
    return Regression(where[0], where[1], *y)


def meta_trained(pool: Sinusoids, inner_steps: int, seed: int, steps: int) -> tuple[Network, float]:
    """Meta-trains a network.

    Args:
        pool: points to sample tasks from.
        inner_steps: gradient steps on each task; 0 trains the network on all tasks at once.
        seed: seed of weights and tasks.
        steps: meta-training steps.

    Returns:
        The network and the seconds that its training took.
    """
    torch.manual_seed(seed)
    learner = MAML(options(inner_steps, steps=steps))
    network = Network()
    network.learned = learner.learned(network, 1)
    started = time.perf_counter()
    for _ in learner.meta_train(network, pool, lambda i: draw(pool, seed, i)):
        continue
    return network, time.perf_counter() - started


def options(inner_steps: int, steps: int = 0) -> MAMLOptions:
    """Options of ``maml`` for this experiment."""
    return MAMLOptions(
        steps=steps, meta_batch=META_BATCH, inner_steps=inner_steps, inner_lr=RATE, head_lr=None, scale=None, lr=1e-3,
        learned_lr=1e-3, training=TrainingOptions(weight_decay=0, clip=1e9),
    )  # fmt: skip


def errors(network: Network, pool: Sinusoids, steps: int, tasks: int = TEST_TASKS) -> np.ndarray:
    """Tests a network on new sinusoids.

    Args:
        network: trained network.
        pool: points to sample tasks from.
        steps: gradient steps on the support set of each task.
        tasks: number of test tasks.

    Returns:
        ``[tasks]`` mean squared errors on the query points.
    """
    learner = MAML(options(steps))
    network.eval()

    def error(task: Regression) -> float:
        return float(np.square(learner.classify(network, pool, task).numpy() - task.labels).mean())

    return np.array([error(draw(pool, 10**6, i)) for i in range(tasks)])


def mean_and_interval(values: Sequence[float] | np.ndarray) -> str:
    """A table cell: mean and 95% interval."""
    return f"{np.mean(values):.2f} ± {interval95(np.asarray(values)):.2f}"


def measure(steps: int = STEPS) -> Table:
    """Errors before and after gradient steps, one row per network."""
    pool = Sinusoids(np.linspace(-5, 5, 100_001, dtype=np.float32)[:, None])
    rows = []
    for name, inner_steps in (("MAML, one inner step", 1), ("pretrained on all tasks", 0)):
        network, seconds = meta_trained(pool, inner_steps, seed=1, steps=steps)
        rows.append([name, *(mean_and_interval(errors(network, pool, n)) for n in (0, 1, 10)), f"{seconds:.0f} s"])
    return Table(
        ("network", "before", "after 1 step", "after 10 steps", "meta-training"),
        rows,
        f"Mean squared error with its 95 % interval over {TEST_TASKS} new sinusoids, after gradient steps on {POINTS} "
        f"points each with learning rate {RATE}; {steps:,} meta-training steps of {META_BATCH} tasks.",
    )
