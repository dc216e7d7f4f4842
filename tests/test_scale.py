"""Many workers and many trials: where workers go, what travels to them, and what a long search keeps in memory."""

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass

import cloudpickle
import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from nas_meta.execution.ray_engine import RayEngine, Resources

# Workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Place:
    """Tells where it runs, and ends when all of them do."""

    folder: str
    weights: np.ndarray

    def setup(self):
        return None

    def where(self, key, together):
        open(f"{self.folder}/{key}", "w").close()
        while len(os.listdir(self.folder)) < together:
            time.sleep(0.05)
        return ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.fixture
def cluster(request):
    """A head without resources for trials, and two nodes; Ray's GPUs are numbers, so a test needs none."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=8, **getattr(request, "param", {}))
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def places(engine, count, folder):
    """Where that many calls run at the same time; each ends only when all have begun."""
    for key in range(count):
        engine.submit(key, "where", key, count)
    found = [event for event in engine.events() if event is not None and event.done]
    assert [event.error for event in found] == [None] * count
    for path in folder.iterdir():
        path.unlink()
    return Counter(event.value for event in found)


@pytest.mark.parametrize("cluster", [{"num_gpus": 2}], indirect=True)
def test_eight_trials_share_two_gpus_of_each_of_two_nodes(cluster, tmp_path):
    payload = Place(str(tmp_path), np.zeros(1))
    engine = RayEngine(payload, Resources(8, 1, 0.5, cluster.address))
    found = places(engine, 8, tmp_path)
    assert len({node for node, _ in found}) == 2
    assert sorted((device, count) for (_, device), count in found.items()) == [("0", 2), ("0", 2), ("1", 2), ("1", 2)]
    engine.close()
    # With half of the workers: one node filled, or both half.
    ray.shutdown()
    engine = RayEngine(payload, Resources(4, 1, 0.5, cluster.address, "packed"))
    found = places(engine, 4, tmp_path)
    assert len({node for node, _ in found}) == 1 and sorted(found.values()) == [2, 2]
    engine.close()
    ray.shutdown()
    engine = RayEngine(payload, Resources(4, 1, 0.5, cluster.address, "spread"))
    found = places(engine, 4, tmp_path)
    by_node = Counter()
    for (node, _), count in found.items():
        by_node[node] += count
    assert sorted(by_node.values()) == [2, 2]
    engine.close()
