"""What travels to a node of a cluster: pretrained weights and tokenised tasks once, then a few bytes a trial."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.table import Table

NODES = 2
WORKERS = 4
TRIALS = 12


@contextmanager
def three_nodes() -> Iterator[str]:
    """The address of a Ray cluster on this machine: a head for the driver and ``NODES`` others, each with its store."""
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
    """The bytes that every node but the driver's ever put into its object store, copies from elsewhere included."""
    import ray
    from ray._private.internal_api import node_stats

    return [
        node_stats(n["NodeManagerAddress"], n["NodeManagerPort"]).store_stats.cumulative_created_bytes
        for n in ray.nodes()
        if n["Alive"] and n["Resources"].get("CPU")
    ]


@dataclass
class Travelled:
    """Bytes of a search on a cluster.

    Attributes:
        payload: of what every worker holds.
        nodes: that the object store of each node took in, whether they came from elsewhere or from its workers.
        weights: of the trained weights that workers sent back.
        arguments: of each trial's arguments.
    """

    payload: int = 0
    nodes: list[int] = field(default_factory=list)
    weights: int = 0
    arguments: list[int] = field(default_factory=list)


def travelled(config: dict[str, Any]) -> Travelled:
    """Runs a search on a cluster and weighs what travels."""
    import cloudpickle

    from nas_meta import search
    from nas_meta.execution import ray_engine

    found = Travelled()
    pickled, submit, events = ray_engine.pickled, ray_engine.RayEngine.submit, ray_engine.RayEngine.events

    def weighed(payload: Any) -> Any:
        data, buffers = pickled(payload)
        found.payload = len(data) + sum(b.nbytes for b in buffers)
        return data, buffers

    def listened(engine: Any, key: Any, method: str, *given: Any) -> None:
        if method == "trial":
            found.arguments.append(len(cloudpickle.dumps(given)))
        submit(engine, key, method, *given)

    def heard(engine: Any) -> Iterator[Any]:
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
        patch.object(ray_engine, "pickled", weighed),
        patch.object(ray_engine.RayEngine, "submit", listened),
        patch.object(ray_engine.RayEngine, "events", heard),
    ):
        resources = {"address": address, "workers": WORKERS, "cpus_per_trial": 1, "placement": "spread"}
        search({**config, "resources": resources}, Path(folder) / "run", watch=watch)
    return found


def measure() -> Table:
    found = travelled(
        {
            "space": {"name": "bert-subnet", "min_layers": 1, "max_layers": 2},
            "learner": {"name": "protonet", "steps": 1},
            "evaluation": {"episodes": 2, "test_best": 0},
            "budget": {"trials": TRIALS},
            "seed": 1,
        }
    )
    together = sum(found.nodes)
    rows = [
        ["what every worker holds: MiniLM and the tokenised ICD-10-CM", f"{found.payload:,}"],
        [
            f"all that the object stores of {NODES} nodes took in, with {WORKERS} workers and {TRIALS} trials",
            f"{together:,}",
        ],
        ["... of it trained weights on their way back to the driver", f"{found.weights:,}"],
        ["... the rest, for each node", f"{(together - found.weights) // NODES:,}"],
        ["arguments of a trial, at most", f"{max(found.arguments):,}"],
    ]
    return Table(
        ("what", "bytes"),
        rows,
        f"A Ray cluster of a head for the driver and {NODES} nodes with two workers each, all on one machine, each "
        "with an object store of its own.",
    )
