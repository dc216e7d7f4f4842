"""Hooks: commands or Python functions of the user that run at the end of every trial and of the search.

Hooks run one after another in a separate thread, so that no trial waits for them. A command receives the event as JSON
on standard input and runs without a shell; a function receives the event as a dict. Every event has ``event``
(``trial_end`` or ``search_end``) and ``run_dir``. A ``trial_end`` has ``trial``; a ``search_end`` has ``phase``,
``error``, ``best`` (a trial) and ``trials`` (their number).
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_meta.config.environment import concealed, expanded_command
from nas_meta.core.guard import first_line
from nas_meta.core.plugins import load_module
from nas_meta.errors import ConfigError, NasMetaError, PluginError, nearest
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.monitor import Monitor

Hook = Callable[[Mapping[str, Any]], None]
QUEUE_SIZE = 1000  # largest number of queued events; further events are dropped
TAIL = 2000  # bytes at the end of a command's output from which the error quotes the last line


class Hooks(Monitor):
    """Calls hooks at the end of trials and of the search.

    Args:
        hooks: Hooks by their key in the config, ``on_trial_end`` and ``on_search_end``.
        directory: Run directory.
        seconds: Timeout in seconds: of each command, and at the end of the search of all remaining events together.
        trouble: Called with one sentence for each failure of a hook.
    """

    def __init__(
        self, hooks: Mapping[str, Hook], directory: Path, seconds: float, trouble: Callable[[str], None]
    ):  # fmt: skip
        self._hooks, self._directory = hooks, directory
        self._seconds, self._trouble = seconds, trouble
        self._queue: queue.Queue[tuple[str, Mapping[str, Any]] | None] = queue.Queue(QUEUE_SIZE)
        self._behind: set[int] = set()  # trials in the queue, or whose hook is running
        self._failures: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run_hooks, name="hooks", daemon=True)
        self._thread.start()

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        self._enqueue("on_trial_end", {"trial": trial.as_dict()})

    def behind(self) -> set[int]:
        return self._behind.copy()

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        best = leaderboard.leader.as_dict() if leaderboard.leader else None
        event = {"phase": phase, "error": error, "best": best, "trials": len(leaderboard.trials)}
        self._enqueue("on_search_end", event)
        deadline = time.monotonic() + self._seconds
        try:
            self._queue.put(None, timeout=self._seconds)
        except queue.Full:
            self._trouble(f"watching: the hooks did not receive the last {self._queue.qsize()} events")
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._report_failures()
        if self._thread.is_alive():
            self._trouble(f"watching: a hook was still running {self._seconds:g} seconds after the end of the search")

    def _enqueue(self, hook: str, event: Mapping[str, Any]) -> None:
        """Queue an event for the thread of the hooks."""
        self._report_failures()
        if hook not in self._hooks:
            return
        document = {"event": hook.removeprefix("on_"), "run_dir": str(self._directory.resolve()), **event}
        trial = event.get("trial", {}).get("id")
        if trial is not None:
            self._behind.add(trial)
        try:
            self._queue.put_nowait((hook, document))
        except queue.Full:
            self._behind.discard(trial)
            self._trouble(f"watching.{hook} is too slow: {QUEUE_SIZE} events were waiting and some were dropped")

    def _report_failures(self) -> None:
        """Report failures of the thread, from the thread of the driver."""
        while not self._failures.empty():
            self._trouble(self._failures.get())

    def _run_hooks(self) -> None:
        """Call hooks until None is queued; runs in the thread."""
        while (queued := self._queue.get()) is not None:
            name, event = queued
            try:
                self._hooks[name](event)
            except (Exception, SystemExit) as error:
                self._failures.put(f"watching.{name} failed: {first_line(error)}")
            self._behind.discard(event.get("trial", {}).get("id"))


def load_hook(target: Sequence[str] | str, seconds: float) -> Hook:
    """Load a hook of a config.

    Args:
        target: A command as a list, or a function as ``path/to/file.py:function`` or ``module:function``.
        seconds: Timeout of a command, in seconds.

    Returns:
        The hook.

    Raises:
        ConfigError: The command, file, module or function does not exist.
    """
    return _command(list(target), seconds) if not isinstance(target, str) else _function(target)


def _command(command: list[str], seconds: float) -> Hook:
    """Return a hook that runs a command."""
    if shutil.which(expanded_command(command, "the hook")[0]) is None:
        raise ConfigError(f"the command {command[0]} does not exist; expected a command on the PATH, or a path")
    return lambda event: _run(command, json.dumps(event), seconds)


def _run(command: list[str], event: str, seconds: float) -> None:
    """Run a command with the event on its standard input; raise NasMetaError if it fails or takes too long."""
    shown, secrets = shlex.join(command), "\n".join(command)
    # Its output goes to a file, because background processes of the command would keep a pipe open.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            expanded_command(command, "the hook"),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.communicate(event.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise NasMetaError(f"{shown} took longer than {seconds:g} seconds") from None
        if process.returncode:
            output.seek(-min(TAIL, output.tell()), os.SEEK_END)
            lines = output.read().decode(errors="replace").strip().splitlines()
            raise NasMetaError(
                f"{shown} exited with {process.returncode}" + (f": {concealed(lines[-1], secrets)}" if lines else "")
            )


def _kill(process: subprocess.Popen) -> None:
    """Kill a command and the processes that it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _function(name: str) -> Hook:
    """Return a hook that is a Python function."""
    where, _, attribute = name.rpartition(":")
    try:
        module = (
            load_module(where, f"the function '{name}'") if where.endswith(".py") else importlib.import_module(where)
        )
    except PluginError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:
        raise ConfigError(f"the module {where} cannot be imported: {first_line(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise ConfigError(f"{where} has no function '{attribute}'; {nearest(attribute, known)}")
    return function
