"""What a call prints, warns and logs on its worker, so that it can travel with the events."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from typing import Any

MOST = 1_000_000  # characters of one call; a call that prints without end fills neither memory nor disk


class Output:
    """While entered, keeps what goes to ``sys.stdout`` and ``sys.stderr`` for :meth:`take`, and lets it through.

    May be entered again while it is. What ``logging`` and ``warnings`` say arrives by ``sys.stderr``; where handlers
    were set up before, which write somewhere else, by a handler of its own.

    Args:
        through: lets through everything, as a person at a terminal expects; else no more than is kept.
    """

    def __init__(self, through: bool):
        self.through = through
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self._lock = threading.Lock()
        self._parts: list[str] = []
        self._room, self._depth = MOST, 0
        self._handler = _Handler(self)

    def renew(self) -> None:
        """A call begins, which may write as much as any."""
        self._room = MOST

    def take(self) -> str:
        """What came since the last time."""
        with self._lock:
            parts, self._parts = self._parts, []
        return "".join(parts)

    def keep(self, text: str) -> bool:
        """Adds to what will be taken; whether there was room."""
        with self._lock:
            if self._room <= 0:
                return False
            self._parts.append(text[: self._room])
            self._room -= len(text)
            if self._room <= 0:
                self._parts.append(f"\n[more than {MOST:,} characters: what follows is left out]\n")
            return True

    def __enter__(self) -> Output:
        self._depth += 1
        if self._depth == 1:
            self._before = sys.stdout, sys.stderr
            sys.stdout, sys.stderr = _Stream(sys.stdout, self), _Stream(sys.stderr, self)
            root = logging.getLogger()
            # With none, a handler here would change what logging does.
            self._handles = bool(root.handlers)
            if self._handles:
                root.addHandler(self._handler)
        return self

    def __exit__(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            sys.stdout, sys.stderr = self._before
            if self._handles:
                logging.getLogger().removeHandler(self._handler)


class _Stream:
    """A stream with somebody who listens."""

    def __init__(self, stream: Any, output: Output):
        self._stream, self._output = stream, output

    def write(self, text: str) -> int:
        if self._output.keep(text) or self._output.through:
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Handler(logging.Handler):
    def __init__(self, output: Output):
        super().__init__()
        self._output = output
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._output.keep(self.format(record) + "\n")
