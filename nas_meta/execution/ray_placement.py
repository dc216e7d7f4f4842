"""On which node of a Ray cluster a worker starts."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What a worker gets, and where: ``packed`` fills a node before the next, ``spread`` goes round them.

    ``cpus`` and ``gpus`` may be fractions. Fractions of a GPU fill one before the next of a node either way.

    Attributes:
        metrics_port: where the exporter of a Ray that starts here listens; None where nobody reads it.
    """

    workers: int
    cpus: float
    gpus: float = 0
    address: str | None = None
    placement: Literal["packed", "spread"] = "packed"
    metrics_port: int | None = None


class Placement:
    """Says for one worker after the other where it goes; remembers where it sent them.

    Ray's own default fills half of a node and then takes the one that is used least.
    """

    def __init__(self, resources: Resources):
        self.resources = resources
        self._sent: dict[Any, str] = {}

    def strategy(self) -> Any:
        """Ray's scheduling strategy for the next worker."""
        if self.resources.placement == "spread":
            return "SPREAD"
        used = Counter(self._sent.values())
        rooms = [(node, room) for node, room in self._rooms().items() if room > used[node]]
        if not rooms:
            return "DEFAULT"
        node, _ = max(rooms, key=lambda entry: used[entry[0]])
        # Others may use it too, or it may die: then Ray takes another.
        return NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)

    def took(self, worker: Any, strategy: Any) -> None:
        """A worker was started so."""
        if isinstance(strategy, NodeAffinitySchedulingStrategy):
            self._sent[worker] = strategy.node_id

    def left(self, worker: Any) -> None:
        """A worker has died."""
        self._sent.pop(worker, None)

    @property
    def needs(self) -> str:
        """What all workers need, and how many have room."""
        r = self.resources
        each = " and ".join(f"{n:g} {kind}{'s' * (n != 1)}" for n, kind in ((r.gpus, "GPU"), (r.cpus, "CPU")) if n)
        room = sum(self._rooms().values())
        return f"resources.workers is {r.workers}, each with {each}, but the cluster has room for {room:g} of them"

    def warn(self) -> None:
        """Says so where the cluster is too small; it may still grow."""
        if sum(self._rooms().values()) < self.resources.workers:
            log.warning("%s; the others wait for nodes to join", self.needs)

    def _rooms(self) -> dict[str, float]:
        """How many workers fit on each node were nothing else there; those without GPUs first."""
        wanted = {"CPU": self.resources.cpus, "GPU": self.resources.gpus}
        rooms: dict[str, float] = {}
        for node in sorted((n for n in ray.nodes() if n["Alive"]), key=lambda n: n["Resources"].get("GPU", 0)):
            fits = [node["Resources"].get(kind, 0) / amount + 1e-9 for kind, amount in wanted.items() if amount]
            rooms[node["NodeID"]] = math.floor(min(fits)) if fits else math.inf
        return rooms
