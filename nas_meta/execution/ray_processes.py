"""Whether Ray's own processes are alive: soon after one has died, the native part of Ray ends this process.

The driver notices the death first: it polls the processes, and leaves Ray while that is still possible, usually within
half a second. Without its raylet, Ray ends the driver as soon as it touches the object store, after about two seconds;
without the GCS after a minute.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import ray

NEEDED = {"raylet": "raylet", "gcs_server": "GCS"}  # names of processes and of their logs, and Ray's words for them


@dataclass(frozen=True)
class RayProcess:
    """A process without which no call can run.

    Attributes:
        name: What Ray calls it.
        log: Its log file.
        exit_code: Returns its exit code or an empty text once it has ended, and None before.
    """

    name: str
    log: str
    exit_code: Callable[[], int | str | None]


def processes_of_ray() -> list[RayProcess]:
    """Return Ray's processes on this machine that the connection of this process depends on.

    Returns:
        The raylet and the GCS of a Ray that this process started; of a cluster that it joined, the raylet of this node.
    """
    # Private, because Ray has no public function for this: ray.nodes() asks the GCS, whose death is to be noticed, and
    # nothing public returns exit codes or the folder of the logs.
    node: Any = ray._private.worker._global_node
    if node is None:
        return []
    logs = node.get_logs_dir_path()
    own = [
        RayProcess(title, f"{logs}/{name}.out", info.process.poll)
        for name, title in NEEDED.items()
        for info in node.all_processes.get(name, [])
    ]
    if own:
        return own
    return [RayProcess("raylet", f"{logs}/raylet.out", _ended(p)) for p in _raylets(node.raylet_socket_name)]


def death_of(processes: list[RayProcess]) -> str | None:
    """Return which of Ray's processes has died.

    Args:
        processes: The processes.

    Returns:
        The sentence; None while all are alive.
    """
    for process in processes:
        code = process.exit_code()
        if code is not None:
            return f"Ray's {process.name} process died{_words(code)}; its log is {process.log}"
    return None


def _words(code: int | str) -> str:
    """Return how a process ended, in brackets; nothing if that is not known."""
    if isinstance(code, int) and code < 0:
        return f" (killed by {signal.Signals(-code).name})"
    return f" (exit code {code})" if code != "" else ""


def _raylets(socket: str) -> list[psutil.Process]:
    """Return the raylet that serves a socket of this machine, which is an argument such as ``--name=socket``."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        arguments = [word.rpartition("=")[2] for word in process.info["cmdline"] or ()]
        # The sockets of further raylets begin alike: raylet, raylet.1.
        if process.info["name"] == "raylet" and socket in arguments:
            found.append(process)
    return found


def _ended(process: psutil.Process) -> Callable[[], str | None]:
    def exit_code() -> str | None:
        try:
            alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            alive = False
        return None if alive else ""

    return exit_code
