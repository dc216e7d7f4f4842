"""Strategies on a large landscape with conditional choices: the loss of decoders by a scaling law.

The space has the choices of common hardware-aware benchmarks of decoders: the width of the embedding, ten to twelve
layers, and for each layer the number of heads and the width of its feed-forward. Nothing is trained: accuracy is minus
a loss that we made up,

    L = 2 + (N₀ / N)^0.3 + narrow + ε,

in which N counts the parameters of all layers, each weighted by how useful its layer is, with diminishing returns of a
wide feed-forward; heads of fewer than 32 dimensions cost loss ("narrow"); and ε is a fixed, normally distributed term
of every architecture, as if each had been trained once. Larger is mostly better, as in benchmarks of language models,
but which layers deserve their parameters differs.

usage: python -m benchmarks.run scaling_table
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.contest import Contest, compare
from benchmarks.table import Table
from nas_meta import Choice, SearchSpace

WIDTHS, DEPTHS, HEADS, RATIOS = (192, 384, 768), (10, 11, 12), (4, 8, 12), (2, 3, 4)
LAYERS = max(DEPTHS)
N0, NOISE = 3e7, 0.004  # scale of the weighted parameters, and the standard deviation of the fixed term
USEFUL = 0.4 + np.random.default_rng(7).random(LAYERS)  # how much a parameter of each layer counts, 0.4 to 1.4


class Decoder(SearchSpace):
    """Width, depth, and the heads and the feed-forward of each layer; about 10¹² architectures."""

    def choices(self):
        table = {"width": Choice(WIDTHS), "depth": Choice(DEPTHS)}
        for i in range(LAYERS):
            present = {"depth": tuple(d for d in DEPTHS if d > i)}
            table |= {f"layer{i}.heads": Choice(HEADS, present), f"layer{i}.ratio": Choice(RATIOS, present)}
        return table

    def build(self, architecture):
        raise AssertionError("a formula, not a model")

    def counts(self, architecture, tokens):
        return {"flops": flops(architecture)}


def flops(architecture: Mapping) -> float:
    """FLOPs of a token: two for each weight of every layer."""
    layers = range(architecture["depth"])
    return 2 * architecture["width"] ** 2 * sum(4 + 2 * architecture[f"layer{i}.ratio"] for i in layers)


def look_up(architecture) -> dict[str, float]:
    """Metrics of an architecture: minus the loss as accuracy, and FLOPs."""
    values, width = architecture.values, architecture["width"]
    useful = narrow = 0.0
    for i in range(values["depth"]):
        heads, ratio = values[f"layer{i}.heads"], values[f"layer{i}.ratio"]
        useful += USEFUL[i] * width**2 * (2 + heads / 6 + 4 * np.sqrt(ratio))
        narrow += 0.01 * max(0.0, 1 - width / heads / 32)
    noise = NOISE * np.random.default_rng(int(architecture.id, 16)).normal()
    return {"accuracy": -(2 + (N0 / useful) ** 0.3 + narrow + noise), "flops": flops(values)}


def corners() -> np.ndarray:
    """``[2, 2]`` the worst and the best values that bound the landscape, without the fixed term; no one has both."""
    ends = []
    for width, heads, ratio, depth in ((192, 12, 2, 10), (768, 12, 4, 12)):
        values = {"width": width, "depth": depth}
        values |= {f"layer{i}.{n}": v for i in range(LAYERS) for n, v in (("heads", heads), ("ratio", ratio))}
        metrics = look_up(Decoder().canonical(values))
        ends.append((metrics["accuracy"], metrics["flops"]))
    (worst, least), (best, most) = ends
    return np.array([(worst, -most), (best, -least)])


def contest() -> Contest:
    """What the strategies search here."""
    return Contest("scaling_table", Decoder(), look_up, corners(), digits=3, gaussian=(50, 25))


def measure() -> Table:
    """Median and quartiles after several numbers of evaluations, one row per strategy and number of objectives."""
    return compare(contest())
