"""Start the Ray of a search on this machine, or join an existing cluster, and leave it again.

A Ray that is started here serves this search alone:

- **Loopback.** All its sockets listen on 127.0.0.1. Ray does this only if its node has this address, which a node gets
  only where no other can join.
- **Token.** Other users of the machine can reach 127.0.0.1, so every request needs a token that only the processes of
  this Ray have. Where the user sets ``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN`` or ``RAY_AUTH_TOKEN_PATH``, these hold.
- **Folder.** Its sockets and logs are in a folder of its own that only this user can read; Ray's default is one folder
  that everybody can read. The folder is removed at the end, unless Ray did not start or one of its processes died:
  its logs then show why.
- **Niceness.** Workers run at the niceness of this process; Ray's default adds 15, and beside other programs such
  workers get next to no time.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

# Private, because Ray has no public functions for this. ENABLE_RAY_CLUSTER decides whether ray.init listens on
# 127.0.0.1; its variable RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is read when ray is imported, and hooks and other children
# would inherit it. Ray reads its authentication once for a process; a second search with another token needs a reset.
from ray._private import ray_constants
from ray._raylet import AuthenticationMode, AuthenticationTokenLoader, Config, get_authentication_mode
from ray.exceptions import RayError

from nas_meta.core.guard import first_line
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.execution.ray_placement import Resources
from nas_meta.execution.ray_processes import death_of, processes_of_ray

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

log = logging.getLogger(__name__)
MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
EXPORT_EVERY = 2000  # milliseconds between two exports of metrics; Ray's default of 10 s exceeds a short search
LONGEST_FOLDER = 34  # characters; with a longer folder, the paths of Ray's sockets exceed the limit of macOS
QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}
FAILURES = (RayError, ConnectionError, OSError, RuntimeError, ValueError)


@contextmanager
def connect(resources: Resources) -> Iterator[dict[str, Any]]:
    """Connect this process to Ray inside the block; keep the connection if there is one already.

    Args:
        resources: Number, size and placement of the workers, and the address of a cluster.

    Yields:
        Options with which actors start at the niceness in ``resources``.

    Raises:
        NasMetaError: Ray cannot be started, the cluster cannot be reached, or it requires a token that is missing.
        ConfigError: This machine has fewer GPUs than the workers need.
    """
    # The niceness of a Ray that already runs is fixed, but not that of a worker with an environment of its own.
    on_running_ray = {"runtime_env": {"env_vars": {"RAY_worker_niceness": str(resources.niceness)}}}
    if ray.is_initialized():
        yield on_running_ray
        return
    mode, folder = os.environ.get(MODE), None
    try:
        if resources.address:
            _join(resources.address)
        else:
            folder = _make_folder()
            _start(resources, folder)
        yield on_running_ray if resources.address else {}
    finally:
        processes = processes_of_ray()
        healthy = bool(processes) and death_of(processes) is None
        ray.shutdown()
        _restore_mode(mode)
        if folder is not None and healthy:
            shutil.rmtree(folder, ignore_errors=True)


def _join(address: str) -> None:
    """Connect to an existing cluster."""
    given = os.environ.get(TOKEN) or os.environ.get(TOKEN_FILE)
    if given and MODE not in os.environ:
        os.environ[MODE] = "token"  # a token that is named is meant to be used
        refresh_authentication()
    try:
        ray.init(address=address, **QUIET)
    except FAILURES as error:
        raise NasMetaError(
            f"the Ray cluster at {address} cannot be joined: {first_line(error)}; expected a cluster that runs and, if "
            f"it requires a token, {MODE}=token and the token in {TOKEN}, the file {TOKEN_FILE} or ~/.ray/auth_token"
        ) from error


def _make_folder() -> str:
    """Make a folder for a Ray of this machine that only this user can read."""
    parent = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    try:
        folder = tempfile.mkdtemp(prefix="nas-meta-", dir=parent)
        if len(folder) > LONGEST_FOLDER and os.path.isdir("/tmp"):
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix="nas-meta-", dir="/tmp")
    except OSError as error:
        raise NasMetaError(
            f"Ray cannot be started: no folder can be made in {error.filename} ({error.strerror}); "
            "expected a temporary folder that can be written, set by TMPDIR"
        ) from error
    return folder


def _start(resources: Resources, folder: str) -> None:
    """Start Ray on this machine, with its sockets and logs in a folder."""
    # Three parameters are private, because ray.init has no public ones for niceness, folder and port of metrics.
    options: dict[str, Any] = {"_system_config": {"worker_niceness": resources.niceness}}
    if resources.metrics_port is not None:
        options["_metrics_export_port"] = resources.metrics_port
        options["_system_config"]["metrics_report_interval_ms"] = EXPORT_EVERY
    try:
        with _loopback(), _own_token():
            ray.init(
                address="local",  # not a Ray that already runs on this machine
                num_cpus=max(1, round(resources.cpus * resources.workers)),
                include_dashboard=False,
                _temp_dir=os.path.join(folder, "ray"),  # not the folder itself, which Ray would open to everybody
                **QUIET,
                **options,
            )
    except FAILURES as error:
        raise NasMetaError(f"Ray cannot be started: {first_line(error)}") from error
    _check_reach()
    _check_gpus(resources)


@contextmanager
def _loopback() -> Iterator[None]:
    """Make a Ray that starts inside the block use the address 127.0.0.1."""
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_token() -> Iterator[None]:
    """Give a Ray that starts inside the block a token of its own, unless the user has set how Ray authenticates.

    Ray's own default is one file for all its clusters, which other users of the machine may be able to read. The token
    is in the environment only while Ray starts, so commands such as hooks do not inherit it.
    """
    if any(name in os.environ for name in (MODE, TOKEN, TOKEN_FILE)):
        yield
        return
    os.environ[TOKEN] = secrets.token_hex(32)
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        del os.environ[TOKEN]


def _restore_mode(mode: str | None) -> None:
    """Set how Ray authenticates back to what it was before; Ray changes it for the whole process when it starts."""
    os.environ.pop(MODE, None)
    if mode is not None:
        os.environ[MODE] = mode
    refresh_authentication()


def refresh_authentication() -> None:
    """Make this process use the mode and the token that are in its environment now; Ray remembers earlier ones."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _check_reach() -> None:
    """Raise a NasMetaError if other machines can reach a Ray that requires no token."""
    address = ray.util.get_node_ip_address()
    if ipaddress.ip_address(address).is_loopback:
        return
    if get_authentication_mode() != AuthenticationMode.TOKEN:
        raise NasMetaError(
            f"Ray {ray.__version__} listens on {address} and requires no token, so other machines could run code here; "
            f"expected {MODE}=token"
        )
    log.warning(
        "Ray %s listens on %s, where other machines can reach it; they need its token", ray.__version__, address
    )


def _check_gpus(resources: Resources) -> None:
    """Raise a ConfigError if this machine has too few GPUs; Ray would wait for them forever."""
    available, needed = ray.cluster_resources().get("GPU", 0), resources.gpus * resources.workers
    if needed > available:
        raise ConfigError(
            f"resources: {resources.workers} workers with {resources.gpus:g} GPUs each need {needed:g}, but this "
            f"machine has {available:g}; expected fewer workers, a smaller gpus_per_trial, or gpus_per_trial: null, "
            "which shares the GPUs out"
        )
