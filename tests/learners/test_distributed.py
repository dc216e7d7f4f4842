"""Several workers train one supernet together: real processes, gloo."""

import itertools
import os
import signal
from contextlib import suppress

import numpy as np
import psutil
import pytest
import torch

from nas_meta import search
from nas_meta.errors import ConfigError
from nas_meta.execution import ray_connection
from nas_meta.models.state import deserialize_state

JOB = {"name": "supernet", "steps": 6, "judged": 12, "texts": 6, "random": 1, "checkpoint_every": 2}


@pytest.fixture
def document(small_config):
    small_config["strategy"], small_config["compute"] = JOB, {"precision": "fp32"}
    small_config["learner"]["training"] = {"dropout": 0.0}
    small_config["budget"] = {"trials": 1}
    return small_config


def weights_of(run):
    return deserialize_state(run.supernet.tobytes())


@pytest.mark.slow
def test_two_workers_take_the_steps_of_one_with_twice_the_episodes(document, tmp_path):
    one = search(document | {"learner": document["learner"] | {"meta_batch": 2}}, tmp_path / "one", inline=True)
    two = search(document | {"strategy": JOB | {"workers": 2}}, tmp_path / "two")
    first, second = weights_of(one), weights_of(two)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(second[name], first[name], atol=2e-5, rtol=1e-3, msg=name)
    alone = search(document, tmp_path / "alone", inline=True)
    moved = max(float((weights_of(alone)[name] - first[name]).abs().max()) for name in first)
    assert moved > 2e-4  # it is not that any training comes out alike

    judged = [{str(row["architecture"]): row["accuracy"] for row in run.findings["judged"]} for run in (one, two)]
    assert len(judged[1]) == len(two.findings["judged"]) == 12
    common = judged[0].keys() & judged[1].keys()
    assert len(common) >= 6 and np.mean([abs(judged[0][a] - judged[1][a]) for a in common]) < 0.05


def workers():
    """The processes of the search's workers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may end meanwhile
            if "ray::_Worker" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


@pytest.mark.slow
def test_when_one_of_them_dies_they_go_on_from_the_last_checkpoint(document, tmp_path):
    document["strategy"] = JOB | {"workers": 2, "steps": 60, "checkpoint_every": 10}
    killed, steps = [], []

    def watch(status):
        if status.phase == "training the supernet":
            steps.append(status.steps[0])
        if not killed and status.steps.get(0, 0) >= 25:
            killed.append(status.steps[0])
            os.kill(workers()[-1], signal.SIGKILL)

    run = search(document, tmp_path / "run", watch=watch)
    whole = search(document, tmp_path / "whole")
    assert killed and [t.status for t in run.trials] == ["completed"]
    begun_again = [b for a, b in itertools.pairwise(steps) if 0 < b < a]
    assert begun_again and begun_again[0] > 20 and begun_again[0] % 10 == 1  # not from its start
    for name, weight in weights_of(whole).items():
        torch.testing.assert_close(weights_of(run)[name], weight, atol=2e-5, rtol=1e-3, msg=name)


def test_more_than_there_are_is_refused_before_ray_starts(document, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_connection, "_start", None)
    document["strategy"] = JOB | {"workers": 3}
    with pytest.raises(ConfigError, match=r"strategy\.workers is 3, but the search has 2; expected at most resources"):
        search(document, tmp_path / "run")
    with pytest.raises(ConfigError, match="but the search has 1"):
        search(document, tmp_path / "inline", inline=True)


def test_they_listen_on_the_loopback_interface_alone():
    from nas_meta.learners.training.distributed import meeting_place

    with meeting_place("127.0.0.1", 2, "gloo") as ranks:
        listening = [c.laddr for c in psutil.Process().net_connections("inet") if c.laddr.port == ranks[0].port]
    assert {address.ip for address in listening} == {"127.0.0.1"}
