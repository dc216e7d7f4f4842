"""Many workers and many trials: where workers go, what travels to them, and what a long search keeps in memory."""

import logging
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

from nas_meta.execution import ray_engine
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


def leave(engine, cluster):
    """Its job ends, and the cluster knows: a worker whose GPU is not free yet would keep the next one off it."""
    engine.close()
    ray.shutdown()
    ray.init(address=cluster.address)
    while any(ray.available_resources().get(kind, 0) < ray.cluster_resources()[kind] for kind in ("CPU", "GPU")):
        time.sleep(0.05)
    ray.shutdown()


@pytest.mark.parametrize("cluster", [{"num_gpus": 2}], indirect=True)
@pytest.mark.slow
def test_eight_trials_share_two_gpus_of_each_of_two_nodes(cluster, tmp_path):
    payload = Place(str(tmp_path), np.zeros(1))
    engine = RayEngine(payload, Resources(8, 1, 0.5, cluster.address))
    found = places(engine, 8, tmp_path)
    assert len({node for node, _ in found}) == 2
    assert sorted((device, count) for (_, device), count in found.items()) == [("0", 2), ("0", 2), ("1", 2), ("1", 2)]
    leave(engine, cluster)
    # With half of the workers: one node filled, or both half.
    engine = RayEngine(payload, Resources(4, 1, 0.5, cluster.address, "packed"))
    found = places(engine, 4, tmp_path)
    assert len({node for node, _ in found}) == 1 and sorted(found.values()) == [2, 2]
    leave(engine, cluster)
    engine = RayEngine(payload, Resources(4, 1, 0.5, cluster.address, "spread"))
    found = places(engine, 4, tmp_path)
    by_node = Counter()
    for (node, _), count in found.items():
        by_node[node] += count
    assert sorted(by_node.values()) == [2, 2]
    engine.close()


@pytest.mark.slow
def test_a_cluster_that_is_too_small_says_so_and_the_rest_runs(cluster, tmp_path, caplog, monkeypatch):
    payload = Place(str(tmp_path), np.zeros(1))
    with caplog.at_level(logging.WARNING):
        engine = RayEngine(payload, Resources(3, 6, 0, cluster.address))
    assert caplog.messages == [
        "resources.workers is 3, each with 6 CPUs, but the cluster has room for 2 of them; "
        "the others wait for nodes to join"
    ]
    assert len(places(engine, 2, tmp_path)) == 2
    engine.close()
    caplog.clear()
    monkeypatch.setattr(ray_engine, "PATIENCE", 0)
    engine = RayEngine(payload, Resources(1, 100, 0, cluster.address))
    assert not engine.await_worker() and not engine.await_worker()
    assert len(caplog.messages) == 2 and caplog.messages[1].startswith("no worker has started for 0 seconds: resources")
    engine.close()


@pytest.mark.slow
def test_packed_workers_go_elsewhere_when_their_node_dies(tmp_path):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = {node.node_id: node for node in (cluster.add_node(num_cpus=2) for _ in range(2))}
    cluster.wait_for_nodes()
    try:
        engine = RayEngine(Place(str(tmp_path), np.zeros(1)), Resources(2, 1, 0, cluster.address))
        ((first, _),) = places(engine, 2, tmp_path)
        cluster.remove_node(nodes[first], allow_graceful=False)
        then = {first}
        while first in then:  # its processes may outlive it for a moment
            for key in range(2):
                engine.submit(key, "where", key, 1)
            ended = [event for event in engine.events() if event is not None and event.done]
            then = {event.value[0] if event.value else first for event in ended}
        assert len(then) == 1
        engine.close()
    finally:
        ray.shutdown()
        cluster.shutdown()


class Told:
    """An engine's payload that yields fast."""

    def setup(self):
        return None

    def count(self, to):
        yield from range(to)
        return "counted"


@pytest.mark.slow
def test_a_call_that_is_cancelled_is_not_heard_of_again(monkeypatch):
    """Neither what came with the event after which it was cancelled, nor what waits while another's is told."""
    monkeypatch.setattr(ray_engine, "MESSAGES", 1)
    engine = RayEngine(Told(), Resources(2, 1))
    while engine.free() < 2:
        time.sleep(0.02)
    for key in "ab":
        engine.submit(key, "count", 1000)
    time.sleep(1)  # both have something to tell
    heard = Counter()
    for event in engine.events():
        if event is None:
            continue
        heard[event.key] += 1
        if sum(heard.values()) == 1:
            told = event.key
            engine.cancel("b" if told == "a" else "a")
        if event.key == told and heard[told] == 5:
            engine.cancel(told)
            engine.submit("c", "count", 3)
    assert heard == {told: 5, "c": 4}
    engine.close()


@pytest.mark.slow
def test_progress_that_comes_fast_travels_in_bundles_in_its_order(monkeypatch):
    messages = []
    get = ray.get
    monkeypatch.setattr(ray, "get", lambda reference: messages.append(get(reference)) or messages[-1])
    engine = RayEngine(Told(), Resources(1, 1))
    while not engine.free():
        time.sleep(0.02)
    messages.clear()
    engine.submit("a", "count", 1000)
    events = [event for event in engine.events() if event is not None]
    engine.close()
    assert [event.value for event in events] == [*range(1000), "counted"]
    assert len(messages[0]) == 1  # the first is not kept waiting
    assert len(messages) < 500 and sum(map(len, messages)) == 1001


@pytest.mark.slow
def test_weights_and_tasks_travel_once_to_a_node_and_little_with_a_trial(small_config):
    """Twelve trials of four workers on two nodes."""
    from benchmarks.bytes_per_node import travelled

    small_config["budget"] = {"trials": 12}
    small_config["evaluation"] |= {"test_best": 0}
    found = travelled(small_config)
    assert len(found.nodes) == 2 and len(found.arguments) == 12
    # Weights of so small a model travel inside messages.
    assert all(found.payload <= received < 1.2 * found.payload for received in found.nodes)
    assert max(found.arguments) < 1000


@pytest.mark.slow
def test_no_worker_waits_for_a_generation_to_end(small_config, tmp_path):
    """Whenever a trial ends another starts, before any other ends: also with a population larger than the workers."""
    from benchmarks import stand_in
    from benchmarks.worker_utilisation import Unequal

    small_config["strategy"] = {"name": "evolution", "population": 6}
    small_config["budget"] = {"trials": 18}
    trials = stand_in.search(small_config, tmp_path / "run", Unequal(0.05, 0.4)).trials
    started = sorted(trial.started for trial in trials)
    finished = sorted(trial.finished for trial in trials)
    assert [trial.status for trial in trials] == ["completed"] * 18
    for one, another, start in zip(finished, finished[1:], started[2:], strict=False):
        assert one <= start <= another


@pytest.mark.slow
def test_a_long_search_keeps_its_memory_and_its_files(tmp_path):
    """Trials that compute nothing; journal, TensorBoard, strategy and Ray are the real ones."""
    from benchmarks.soak import MEBI, soak, tensorboard_seconds

    first, *_, last = soak(tmp_path / "run", 500, 100)
    assert (first.trials, last.trials) == (100, 500)
    assert last.driver - first.driver < 20 * MEBI and last.workers - first.workers < 20 * MEBI
    assert last.files - first.files <= 5 and last.worker_files - first.worker_files <= 5
    assert last.threads - first.threads <= 5
    assert tensorboard_seconds(tmp_path / "run" / "tensorboard")[2] == 500
    assert len(list((tmp_path / "run" / "weights").iterdir())) == 3
