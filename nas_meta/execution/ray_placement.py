"""Choose the node of a Ray cluster on which a worker starts."""

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
    """Number, size and placement of the workers.

    Attributes:
        workers: Number of workers.
        cpus: CPUs per worker; may be a fraction.
        gpus: GPUs per worker; may be a fraction. Fractions fill one GPU of a node before the next.
        address: Address of an existing Ray cluster; None starts Ray on this machine.
        placement: ``packed`` fills a node before the next one, ``spread`` distributes the workers over the nodes.
        metrics_port: Port of 127.0.0.1 on which a Ray started here exports its metrics; None exports nothing.
        niceness: Added to the niceness of this process, or of the cluster's Ray, for the workers; at most 19.
    """

    workers: int
    cpus: float
    gpus: float = 0
    address: str | None = None
    placement: Literal["packed", "spread"] = "packed"
    metrics_port: int | None = None
    niceness: int = 0


class Placement:
    """Assigns workers to nodes one after the other, and remembers the assignments.

    It packs nodes itself because Ray's default strategy fills half of a node and then prefers the least used node.

    Args:
        resources: Number, size and placement of the workers.
    """

    def __init__(self, resources: Resources):
        self.resources = resources
        self._node_of: dict[Any, str] = {}

    def strategy(self) -> Any:
        """Return Ray's scheduling strategy for the next worker.

        With ``packed`` it prefers the node that has the most of these workers and room for another one.

        Returns:
            A value for the option ``scheduling_strategy`` of an actor.
        """
        if self.resources.placement == "spread":
            return "SPREAD"
        used = Counter(self._node_of.values())
        with_room = [(node, capacity) for node, capacity in self._capacities().items() if capacity > used[node]]
        if not with_room:
            return "DEFAULT"
        node, _ = max(with_room, key=lambda entry: used[entry[0]])
        # Soft, so that Ray chooses another node if this one is busy with other work or has died.
        return NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True)

    def add(self, worker: Any, strategy: Any) -> None:
        """Record a worker that was started.

        Args:
            worker: The actor.
            strategy: The strategy from :meth:`strategy` with which it was started.
        """
        if isinstance(strategy, NodeAffinitySchedulingStrategy):
            self._node_of[worker] = strategy.node_id

    def remove(self, worker: Any) -> None:
        """Forget a worker that has died.

        Args:
            worker: The actor.
        """
        self._node_of.pop(worker, None)

    @property
    def room(self) -> float:
        """Number of these workers that fit on the cluster if nothing else runs there."""
        return sum(self._capacities().values())

    @property
    def needs(self) -> str:
        """One clause on what the workers need and how many of them fit on the cluster."""
        r = self.resources
        each = " and ".join(f"{n:g} {kind}{'s' * (n != 1)}" for n, kind in ((r.gpus, "GPU"), (r.cpus, "CPU")) if n)
        return f"resources.workers is {r.workers}, each with {each}, but the cluster has room for {self.room:g} of them"

    def warn(self) -> None:
        """Log a warning if the cluster is too small for all workers; it may still grow, so this is not an error."""
        if self.room < self.resources.workers:
            log.warning("%s; the others wait for nodes to join", self.needs)

    def _capacities(self) -> dict[str, float]:
        """Return how many workers fit on each node if nothing else runs there; nodes with fewer GPUs come first."""
        required = {"CPU": self.resources.cpus, "GPU": self.resources.gpus}
        capacities: dict[str, float] = {}
        for node in sorted((n for n in ray.nodes() if n["Alive"]), key=lambda n: n["Resources"].get("GPU", 0)):
            fits = [node["Resources"].get(kind, 0) / amount + 1e-9 for kind, amount in required.items() if amount]
            capacities[node["NodeID"]] = math.floor(min(fits)) if fits else math.inf
        return capacities
