"""Capture what a call prints, warns and logs on its worker, so that the text can travel with the call's events."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from typing import Any

MAX_CHARACTERS = 1_000_000  # per call, so that endless printing fills neither memory nor disk


class CapturedOutput:
    """Context manager that collects what is written to ``sys.stdout`` and ``sys.stderr``.

    It may be entered again while it is active. Warnings and log records are captured on their way to ``sys.stderr``.
    If the root logger has handlers already, they may write elsewhere, so a handler of this class captures log records.

    Args:
        pass_through: Whether all text also reaches the original streams, as at a terminal. Otherwise they get the text
            up to the limit, like the capture.

    Attributes:
        worker: Where this process runs, as ``host:process``.
    """

    def __init__(self, pass_through: bool):
        self.pass_through = pass_through
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self._lock = threading.Lock()
        self._parts: list[str] = []
        self._remaining, self._depth = MAX_CHARACTERS, 0
        self._handler = _Handler(self)

    def reset_limit(self) -> None:
        """Grant the full limit of characters to the call that begins."""
        self._remaining = MAX_CHARACTERS

    def drain(self) -> str:
        """Return the text captured since the last call of this method, and forget it."""
        with self._lock:
            parts, self._parts = self._parts, []
        return "".join(parts)

    def capture(self, text: str) -> bool:
        """Add text to the capture; text beyond the limit is cut, with a note.

        Args:
            text: The text that was written.

        Returns:
            Whether there was room for the text, or for a part of it.
        """
        with self._lock:
            if self._remaining <= 0:
                return False
            self._parts.append(text[: self._remaining])
            self._remaining -= len(text)
            if self._remaining <= 0:
                self._parts.append(f"\n[more than {MAX_CHARACTERS:,} characters: the rest is left out]\n")
            return True

    def __enter__(self) -> CapturedOutput:
        self._depth += 1
        if self._depth == 1:
            self._original_streams = sys.stdout, sys.stderr
            sys.stdout, sys.stderr = _Stream(sys.stdout, self), _Stream(sys.stderr, self)
            root = logging.getLogger()
            # Without handlers, logging writes warnings to sys.stderr; adding a handler would turn that off.
            self._handles_logging = bool(root.handlers)
            if self._handles_logging:
                root.addHandler(self._handler)
        return self

    def __exit__(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            sys.stdout, sys.stderr = self._original_streams
            if self._handles_logging:
                logging.getLogger().removeHandler(self._handler)


class _Stream:
    """A stream whose text is captured."""

    def __init__(self, stream: Any, output: CapturedOutput):
        self._stream, self._output = stream, output

    def write(self, text: str) -> int:
        if self._output.capture(text) or self._output.pass_through:
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Handler(logging.Handler):
    """A log handler that captures records."""

    def __init__(self, output: CapturedOutput):
        super().__init__()
        self._output = output
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._output.capture(self.format(record) + "\n")
