"""A Ray that a search starts serves that search alone: on 127.0.0.1, behind a token, at the search's own niceness."""

import ipaddress
import os
import secrets
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import psutil
import pytest
import ray
from ray._raylet import AuthenticationMode, get_authentication_mode
from ray.cluster_utils import Cluster

from nas_meta.config.components import make_engine
from nas_meta.config.resolved import resolve
from nas_meta.errors import NasMetaError
from nas_meta.execution import ray_connection, ray_engine
from nas_meta.execution.ray_engine import RayEngine, Resources

# Workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True)
class Worker:
    """Reports about the process in which it runs."""

    def setup(self):
        return None

    def niceness(self):
        return os.nice(0)

    def share_beside(self, pid, cpu):
        """Share of the time that this process gets of the CPU on which another one is busy, of what both get."""
        os.sched_setaffinity(0, {cpu})
        other = psutil.Process(pid)
        before, own, deadline = sum(other.cpu_times()[:2]), time.process_time(), time.monotonic() + 2
        while time.monotonic() < deadline:
            pass
        own = time.process_time() - own
        return own / (own + sum(other.cpu_times()[:2]) - before)


@pytest.fixture
def no_token(tmp_path, monkeypatch):
    """A user who has set nothing about Ray's authentication, and has no home directory in which Ray can write."""
    for name in AUTHENTICATION:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))


def result(engine, method, *arguments):
    engine.submit("a", method, *arguments)
    (event,) = [event for event in engine.events() if event is not None]
    assert event.error is None
    return event.value


def listening():
    """Addresses on which this process and those that it started listen."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [c for process in processes for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return [ipaddress.ip_address(c.laddr.ip.removeprefix("::ffff:")) for c in sockets]


CONNECT = """
import sys
import time
from ray._private import ray_constants
ray_constants.ENABLE_RAY_CLUSTER = False  # otherwise Ray would replace 127.0.0.1 by the address of this machine
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)))
"""


def connect(address, **environment):
    """What another process reaches at the address of a Ray."""
    clean = {name: value for name, value in os.environ.items() if name not in AUTHENTICATION}
    command = [sys.executable, "-c", CONNECT, address]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
def test_ray_listens_on_loopback_only_and_serves_only_those_with_its_token(no_token, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(dir="/tmp"))  # short enough for the sockets
    shared = Path(os.environ["RAY_TMPDIR"])
    tokens, token_hex = [], secrets.token_hex
    monkeypatch.setattr(secrets, "token_hex", lambda size: tokens.append(token_hex(size)) or tokens[-1])
    engine = RayEngine(Worker(), Resources(2, 1))
    try:
        while engine.free() < 2:
            engine.await_worker()
        addresses = listening()
        assert len(addresses) >= 5 and all(address.is_loopback for address in addresses)
        assert get_authentication_mode() == AuthenticationMode.TOKEN
        assert "RAY_AUTH_TOKEN" not in os.environ
        address = ray.get_runtime_context().gcs_address
        without, wrong = connect(address), connect(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        assert "AuthenticationError" in without.stderr and "AuthenticationError" in wrong.stderr
        assert connect(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=tokens[0]).stdout == "1\n"
        (folder,) = shared.iterdir()  # its sockets and logs, for this user alone
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and list(folder.glob("ray/session_*/logs"))
    finally:
        engine.close()
    shared.rmdir()  # nothing stayed
    assert "RAY_AUTH_MODE" not in os.environ and get_authentication_mode() == AuthenticationMode.DISABLED


@pytest.mark.slow
def test_workers_run_at_the_niceness_of_the_search_plus_the_given_one():
    engine = RayEngine(Worker(), Resources(1, 1, niceness=7))
    try:
        assert result(engine, "niceness") == os.nice(0) + 7
    finally:
        engine.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to a CPU")
@pytest.mark.slow
def test_a_worker_gets_its_fair_share_of_a_busy_cpu():
    cpu = min(os.sched_getaffinity(0))
    engine = RayEngine(Worker(), Resources(1, 1))
    busy = subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"])
    try:
        assert result(engine, "niceness") == os.nice(0)
        assert result(engine, "share_beside", busy.pid, cpu) > 0.4
    finally:
        busy.kill()
        busy.wait()
        engine.close()


def test_the_niceness_of_a_config_reaches_the_engine(small_config, monkeypatch):
    monkeypatch.setattr(ray_engine, "RayEngine", lambda payload, resources: resources)
    small_config["resources"]["niceness"] = 3
    assert make_engine(None, resolve(small_config).sections, inline=False).niceness == 3


@pytest.mark.slow
def test_a_ray_that_other_machines_reach_needs_a_token(no_token, monkeypatch):
    monkeypatch.setattr(ray_connection, "_loopback", nullcontext)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    if ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback:
        pytest.skip("this machine has only the address 127.0.0.1")
    with pytest.raises(NasMetaError, match=r"requires no token, .*; expected RAY_AUTH_MODE=token"):
        RayEngine(Worker(), Resources(1, 1))
    assert not ray.is_initialized()


@pytest.fixture
def token_cluster(no_token, monkeypatch):
    """A cluster that requires the token in ``RAY_AUTH_TOKEN``."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ray_connection.refresh_authentication()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0})
    monkeypatch.delenv("RAY_AUTH_MODE")
    ray_connection.refresh_authentication()
    yield cluster
    monkeypatch.undo()
    ray_connection.refresh_authentication()
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_cluster_is_joined_with_its_token_and_its_workers_are_not_nicer_than_their_node(token_cluster, monkeypatch):
    engine = RayEngine(Worker(), Resources(1, 1, address=token_cluster.address))
    assert result(engine, "niceness") == os.nice(0)
    engine.close()
    assert "RAY_AUTH_MODE" not in os.environ and get_authentication_mode() == AuthenticationMode.DISABLED
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setattr("ray._private.ray_constants.NUM_REDIS_GET_RETRIES", 1)
    with pytest.raises(NasMetaError, match=r"cannot be joined: .*if it requires a token, RAY_AUTH_MODE=token and"):
        RayEngine(Worker(), Resources(1, 1, address=token_cluster.address))
