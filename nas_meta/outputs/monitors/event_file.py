"""TensorBoard's event files without a thread and an open file for each: hundreds are written to at the same time."""

from __future__ import annotations

import os
import socket
import time
from itertools import count
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import FileWriter, SummaryWriter

EVERY = 5.0  # seconds for which events of one file wait for more, when they come fast
_numbers = count()


class EventFile:
    """One file, opened only while a bundle of events is appended to it."""

    def __init__(self, directory: str):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = self.directory / name
        self._waiting: list[bytes] = []
        self._written = 0.0
        source = SourceMetadata(writer="nas_meta.outputs.monitors.event_file")
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2", source_metadata=source))

    def add_event(self, event: Any) -> None:
        """Writes an event, the next time that something is written."""
        self._waiting.append(event.SerializeToString())
        if time.monotonic() - self._written > EVERY:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        self._written = time.monotonic()
        if self._waiting:
            with self.path.open("ab") as file:
                records = RecordWriter(file)
                for event in self._waiting:
                    records.write(event)
            self._waiting.clear()

    close = flush

    def get_logdir(self) -> str:
        return str(self.directory)


class EventWriter(SummaryWriter):
    """torch's writer of scalars, texts and figures, on an :class:`EventFile`."""

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = FileWriter.__new__(FileWriter)  # its constructor starts a thread
            self.file_writer.event_writer = EventFile(str(self.log_dir))
            self.all_writers = {self.log_dir: self.file_writer}
        return self.file_writer
