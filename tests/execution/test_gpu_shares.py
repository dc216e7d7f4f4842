"""Trials use the GPUs that are there, and share them; Ray's GPUs are numbers here, so the tests need none."""

import io
import logging
import os
import sys

import cloudpickle
import pytest
import ray
import torch
import yaml
from ray.cluster_utils import Cluster
from rich.console import Console

from nas_meta.config.gpu_sharing import describe_device, on_this_machine, with_shared_gpus
from nas_meta.config.resolved import resolve
from nas_meta.controller import launch
from nas_meta.controller.sessions import config_to_resume
from nas_meta.errors import ConfigError
from nas_meta.execution.gpu_shares import cluster_gpu_share, gpu_share
from nas_meta.execution.ray_engine import RayEngine, Resources
from nas_meta.journal.run import Run
from nas_meta.journal.status import read_status
from nas_meta.outputs.report.live import LiveProgress, status_view

# Workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Worker:
    def setup(self):
        return None

    def gpus(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.fixture
def gpus(monkeypatch):
    """Sets the number of GPUs that torch finds."""

    def set_number(number):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return set_number


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("workers", [1, 2, 3, 6, 7, 16, 31])
def test_all_workers_fit_on_the_gpus_with_their_share(count, workers):
    share = gpu_share(count, workers)
    assert share * 10_000 == pytest.approx(round(share * 10_000), abs=1e-9)  # what Ray can count
    per_gpu = round(share * 10_000)
    assert (10_000 // per_gpu) * count >= workers  # there is room
    assert per_gpu == 10_000 or (10_000 // (per_gpu + 1)) * count < workers  # and not with a larger share


@pytest.mark.parametrize(
    ("number", "compute", "resources", "expected"),
    [
        (0, "auto", {"workers": 2}, (0, "cpu", "cpu")),
        (1, "auto", {"workers": 2}, (0.5, "cuda", "cuda, 2 trials per GPU")),
        (2, "auto", {"workers": 5}, (0.3333, "cuda", "cuda, 3 trials per GPU")),
        (4, "auto", {"workers": 2}, (1, "cuda", "cuda, 1 GPU per trial")),
        (1, "cuda", {"workers": 4}, (0.25, "cuda", "cuda, 4 trials per GPU")),
        (1, "cpu", {"workers": 2}, (0, "cpu", "cpu")),
        (1, "auto", {"workers": 2, "gpus_per_trial": 0}, (0, "cpu", "cpu")),
        (8, "auto", {"workers": 2, "gpus_per_trial": 2}, (2, "cuda", "cuda, 2 GPUs per trial")),
    ],
)
def test_a_config_that_leaves_it_open_uses_the_gpus_that_are_there(
    gpus, small_config, number, compute, resources, expected
):
    gpus(number)
    resolved = resolve(small_config | {"compute": {"device": compute, "precision": "fp32"}, "resources": resources})
    shared = with_shared_gpus(resolved, inline=False)
    device = describe_device(shared.sections, inline=False)
    assert (shared.sections.resources.gpus_per_trial, shared.sections.device, device) == expected
    assert shared.document["resources"]["gpus_per_trial"] == expected[0]
    assert resolve(shared.given).sections == shared.sections
    # Outside of a search, where nothing is shared out, the device is the same.
    assert resolved.sections.device == expected[1]


@pytest.mark.slow
def test_workers_of_a_machine_share_its_gpus(monkeypatch):
    init = ray.init
    monkeypatch.setattr(ray, "init", lambda **options: init(**options, num_gpus=2))
    engine = RayEngine(Worker(), Resources(3, 1, gpu_share(2, 3)))
    try:
        while engine.free() < 3:
            engine.await_worker()
        for key in range(3):
            engine.submit(key, "gpus")
        assert sorted(event.value for event in engine.events() if event is not None) == ["0", "0", "1"]
    finally:
        engine.close()


@pytest.mark.slow
def test_workers_of_a_cluster_share_its_gpus_if_they_all_find_room(caplog):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    try:
        cluster.add_node(num_cpus=4, num_gpus=2)
        cluster.add_node(num_cpus=4, num_gpus=0)
        cluster.wait_for_nodes()
        assert cluster_gpu_share(Resources(4, 1, address=cluster.address), required=False) == 0.5
        assert not caplog.messages
        with caplog.at_level(logging.WARNING):
            assert cluster_gpu_share(Resources(8, 1, address=cluster.address), required=False) == 0
        assert caplog.messages == [
            "the nodes with GPUs have room for 4 of 8 workers, so trials run on the CPUs of all nodes; "
            "set resources.gpus_per_trial to use the GPUs"
        ]
        assert cluster_gpu_share(Resources(8, 1, address=cluster.address), required=True) == 0.25
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_build_of_torch_that_cannot_use_the_gpu_is_named(gpus, small_config, tmp_path, monkeypatch, caplog):
    gpus(0)
    driver = tmp_path / "nvidiactl"
    driver.touch()
    monkeypatch.setattr("nas_meta.config.gpu_sharing.DRIVERS", {"NVIDIA": driver})
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with_shared_gpus(resolve(small_config), inline=False)
    assert len(caplog.messages) == 1 and "a GPU (NVIDIA), but the installed torch computes on CPUs only" in caplog.text


def test_a_run_records_and_shows_its_device_and_keeps_it(gpus, small_config, tmp_path):
    gpus(0)
    small_config["compute"] = {"precision": "fp32"}
    console = Console(file=io.StringIO(), width=100)
    launch.search(small_config, tmp_path / "cpu", inline=True, watch=LiveProgress(console))
    run = Run(tmp_path / "cpu")
    console.print(status_view(read_status(run)))
    shown = console.file.getvalue().splitlines()
    assert shown[0] == "trials run on cpu" and shown.count("trials run on cpu") == 1
    assert "device       cpu" in [line.rstrip() for line in shown]
    assert yaml.safe_load((run.directory / "config.yaml").read_text())["resources"]["gpus_per_trial"] == 0
    gpus(1)  # whoever resumes has a GPU
    again = with_shared_gpus(config_to_resume(run.directory, resolve(small_config)), inline=False)
    assert again.sections.device == "cpu"
    again = with_shared_gpus(config_to_resume(run.directory), inline=False)
    assert again.sections.device == "cpu"
    overrides = ["resources.gpus_per_trial=null"]
    again = with_shared_gpus(config_to_resume(run.directory, None, overrides), inline=False)
    assert again.sections.resources.gpus_per_trial == 0.5


def test_a_model_of_a_gpu_is_used_on_a_machine_without_one(gpus, small_config):
    small_config["resources"]["gpus_per_trial"] = 0.5
    gpus(1)
    assert on_this_machine(resolve(small_config)).sections.device == "cuda"
    gpus(0)
    assert on_this_machine(resolve(small_config)).sections.device == "cpu"
    with pytest.raises(ConfigError, match=r"compute\.device is cuda, but torch finds no GPU;"):
        on_this_machine(resolve(small_config | {"compute": {"device": "cuda"}}))
