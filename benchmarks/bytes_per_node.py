"""Bytes sent to each node of a cluster: pretrained weights and tokenised tasks once, then a few bytes per trial.

usage: python -m benchmarks.run bytes_per_node
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.plain_training import SHARES
from benchmarks.table import Table

NODES = 2
WORKERS = 4
TRIALS = 12


@contextmanager
def three_nodes() -> Iterator[str]:
    """Starts a Ray cluster on this machine and yields its address.

    The cluster has a head node for the driver and ``NODES`` worker nodes, each with its own object store.
    """
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(NODES):
        cluster.add_node(num_cpus=WORKERS // NODES)
    cluster.wait_for_nodes()
    try:
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def stored() -> list[int]:
    """Cumulative bytes written to the object store of each worker node, including copies from other nodes."""
    import ray
    from ray._private.internal_api import node_stats

    return [
        node_stats(n["NodeManagerAddress"], n["NodeManagerPort"]).store_stats.cumulative_created_bytes
        for n in ray.nodes()
        if n["Alive"] and n["Resources"].get("CPU")
    ]


@dataclass
class Travelled:
    """Bytes that a search on a cluster moved.

    Attributes:
        payload: bytes of the payload that every worker holds.
        nodes: bytes written to the object store of each worker node, by other nodes or by its own workers.
        weights: bytes of the trained weights that workers sent back.
        arguments: bytes of each trial's arguments.
    """

    payload: int = 0
    nodes: list[int] = field(default_factory=list)
    weights: int = 0
    arguments: list[int] = field(default_factory=list)


def travelled(config: dict[str, Any]) -> Travelled:
    """Runs a search on a cluster and counts the bytes that travel."""
    import cloudpickle

    from nas_meta import search
    from nas_meta.execution import ray_engine

    found = Travelled()
    pickled, submit, events = ray_engine.pickled, ray_engine.RayEngine.submit, ray_engine.RayEngine.events

    def count_payload(payload: Any) -> Any:
        data, buffers = pickled(payload)
        found.payload = len(data) + sum(b.nbytes for b in buffers)
        return data, buffers

    def count_arguments(engine: Any, key: Any, method: str, *given: Any) -> None:
        if method == "trial":
            found.arguments.append(len(cloudpickle.dumps(given)))
        submit(engine, key, method, *given)

    def count_weights(engine: Any) -> Iterator[Any]:
        for event in events(engine):
            weights = getattr(event.value, "weights", None) if event is not None else None
            found.weights += 0 if weights is None else weights.nbytes
            yield event

    def watch(status: Any) -> None:
        if status.phase == "meta-testing" and not found.nodes:
            found.nodes = stored()

    with (
        three_nodes() as address,
        tempfile.TemporaryDirectory() as folder,
        patch.object(ray_engine, "pickled", count_payload),
        patch.object(ray_engine.RayEngine, "submit", count_arguments),
        patch.object(ray_engine.RayEngine, "events", count_weights),
    ):
        resources = {"address": address, "workers": WORKERS, "cpus_per_trial": 1, "placement": "spread"}
        search({**config, "resources": resources}, Path(folder) / "run", watch=watch)
    return found


def measure() -> Table:
    """Bytes of a search with 12 trials, one row per kind of data."""
    found = travelled(
        {
            "space": {"name": "bert-subnet", "min_layers": 1, "max_layers": 2, **SHARES},
            "learner": {"name": "protonet", "steps": 1},
            "evaluation": {"episodes": 2, "test_best": 0},
            "budget": {"trials": TRIALS},
            "seed": 1,
        }
    )
    together = sum(found.nodes)
    rows = [
        ["data that every worker holds: MiniLM and the tokenised ICD-10-CM", f"{found.payload:,}"],
        [
            f"total written to the object stores of {NODES} nodes, with {WORKERS} workers and {TRIALS} trials",
            f"{together:,}",
        ],
        ["... of which trained weights on their way back to the driver", f"{found.weights:,}"],
        ["... the rest, per node", f"{(together - found.weights) // NODES:,}"],
        ["arguments of one trial, at most", f"{max(found.arguments):,}"],
    ]
    return Table(
        ("data", "bytes"),
        rows,
        f"The Ray cluster has a head for the driver and {NODES} nodes with two workers each, all on one machine, each "
        "with its own object store.",
    )
