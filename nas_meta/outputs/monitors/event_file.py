"""Write TensorBoard event files without a thread and an open file handle for each.

A search writes to hundreds of event files at the same time. torch's ``SummaryWriter`` would start a thread and keep a
file open for every one.
"""

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

EVERY = 5.0  # shortest time between two writes to one file, in seconds; events in between are buffered
_numbers = count()


class EventFile:
    """One event file, opened only while buffered events are appended.

    Args:
        directory: Folder of the file; created if necessary.
    """

    def __init__(self, directory: str):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = self.directory / name
        self._buffer: list[bytes] = []
        self._written = 0.0
        source = SourceMetadata(writer="nas_meta.outputs.monitors.event_file")
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2", source_metadata=source))

    def add_event(self, event: Any) -> None:
        """Buffer an event, and write the buffer if the last write is old enough.

        Args:
            event: An ``Event`` of TensorBoard.
        """
        self._buffer.append(event.SerializeToString())
        if time.monotonic() - self._written > EVERY:
            self.flush()

    def flush(self) -> None:
        """Write all buffered events."""
        self._written = time.monotonic()
        if self._buffer:
            with self.path.open("ab") as file:
                records = RecordWriter(file)
                for event in self._buffer:
                    records.write(event)
            self._buffer.clear()

    close = flush

    def get_logdir(self) -> str:
        """Return the folder of the file, as ``SummaryWriter`` expects."""
        return str(self.directory)


class EventWriter(SummaryWriter):
    """torch's ``SummaryWriter``, writing to an :class:`EventFile`."""

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = FileWriter.__new__(FileWriter)  # skips the constructor, which starts a thread
            self.file_writer.event_writer = EventFile(str(self.log_dir))
            self.all_writers = {self.log_dir: self.file_writer}
        return self.file_writer
