"""What the user wants run at the end of a trial or of the search: a command, or a Python function.

They run one after the other on a thread of their own, so that no trial waits for them. A command gets the event as JSON
on its standard input, a function as a dict: ``event`` (``trial_end`` or ``search_end``), ``run_dir``, and ``trial``; at
the end of the search ``phase``, ``error``, ``best`` (a trial) and ``trials`` (how many there are). There is no shell.
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

from nas_meta.core.plugins import load_module
from nas_meta.errors import ConfigError, NasMetaError, PluginError, nearest
from nas_meta.execution.engine import cause
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.monitor import Monitor

Hook = Callable[[Mapping[str, Any]], None]
MOST_WAITING = 1000  # events; a hook that is so far behind misses some
TAIL = 2000  # bytes of what a command said


class Hooks(Monitor):
    """Tells hooks of the ends of trials and of the search.

    Args:
        hooks: by their key in the config, as :func:`load_hook` makes them.
        seconds: how long an event may take, and at the end of the search all that are left together.
        trouble: called with a sentence where a hook fails.
    """

    def __init__(
        self, hooks: Mapping[str, Hook], directory: Path, seconds: float, trouble: Callable[[str], None]
    ):  # fmt: skip
        self._hooks, self._directory = hooks, directory
        self._seconds, self._trouble = seconds, trouble
        self._waiting: queue.Queue[tuple[str, Mapping[str, Any]] | None] = queue.Queue(MOST_WAITING)
        self._failures: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="hooks", daemon=True)
        self._thread.start()

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        self._tell("on_trial_end", {"trial": trial.as_dict()})

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        best = leaderboard.leader.as_dict() if leaderboard.leader else None
        self._tell("on_search_end", {"phase": phase, "error": error, "best": best, "trials": len(leaderboard.trials)})
        until = time.monotonic() + self._seconds
        try:
            self._waiting.put(None, timeout=self._seconds)
        except queue.Full:
            self._trouble(f"watching: the hooks were not told of the last {self._waiting.qsize()} events")
        self._thread.join(max(0.0, until - time.monotonic()))
        self._told()
        if self._thread.is_alive():
            self._trouble(f"watching: a hook was still at work {self._seconds:g} seconds after the search had ended")

    def _tell(self, hook: str, event: Mapping[str, Any]) -> None:
        self._told()
        if hook not in self._hooks:
            return
        told = {"event": hook.removeprefix("on_"), "run_dir": str(self._directory.resolve()), **event}
        try:
            self._waiting.put_nowait((hook, told))
        except queue.Full:
            self._trouble(f"watching.{hook} is {MOST_WAITING} events behind and missed some")

    def _told(self) -> None:
        """Failures of the other thread, said from this one."""
        while not self._failures.empty():
            self._trouble(self._failures.get())

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            name, event = waiting
            try:
                self._hooks[name](event)
            except (Exception, SystemExit) as error:
                self._failures.put(f"watching.{name} failed: {cause(error)}")


def load_hook(target: Sequence[str] | str, seconds: float) -> Hook:
    """The hook of a config: a command as a list, or a function as ``path/to/file.py:function`` or ``module:function``.

    Raises:
        ConfigError: there is no such command, file, module or function.
    """
    return _command(list(target), seconds) if not isinstance(target, str) else _function(target)


def _command(command: list[str], seconds: float) -> Hook:
    if shutil.which(command[0]) is None:
        raise ConfigError(f"there is no command {command[0]}; expected one on the PATH, or the path of a program")
    return lambda event: _run(command, json.dumps(event), seconds)


def _run(command: list[str], event: str, seconds: float) -> None:
    said = shlex.join(command)
    # What it prints goes to a file: a pipe would be held open by whatever it has started itself.
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.communicate(event.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise NasMetaError(f"{said} took longer than {seconds:g} seconds") from None
        if process.returncode:
            printed.seek(-min(TAIL, printed.tell()), os.SEEK_END)
            lines = printed.read().decode(errors="replace").strip().splitlines()
            raise NasMetaError(f"{said} ended with {process.returncode}" + (f", saying: {lines[-1]}" if lines else ""))


def _kill(process: subprocess.Popen) -> None:
    """Ends a command with what it has started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _function(name: str) -> Hook:
    where, _, attribute = name.rpartition(":")
    try:
        module = (
            load_module(where, f"the function '{name}'") if where.endswith(".py") else importlib.import_module(where)
        )
    except PluginError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:
        raise ConfigError(f"the module {where} cannot be imported: {cause(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
        raise ConfigError(f"{where} has no function '{attribute}'; {nearest(attribute, known)}")
    return function
