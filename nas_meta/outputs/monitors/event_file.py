"""Write TensorBoard event files without a thread and an open file handle for each.

A search writes to hundreds of event files at the same time. torch's ``SummaryWriter`` would start a thread and keep a
file open for every one.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary as summaries

EVERY = 5.0  # shortest time between two writes to one file, in seconds; events in between are buffered
_numbers = count()


class EventWriter:
    """One event file with the methods of torch's ``SummaryWriter``, opened only while buffered events are appended.

    Args:
        directory: Folder of the file; created if necessary.
    """

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = directory / name
        self._buffer: list[bytes] = []
        self._written = 0.0
        source = SourceMetadata(writer="nas_meta.outputs.monitors.event_file")
        self._add(Event(file_version="brain.Event:2", source_metadata=source))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Add a point of a curve.

        Args:
            tag: Name of the curve.
            value: The value.
            step: The step.
        """
        self.add_summary(summaries.scalar(tag, value), step)

    def add_text(self, tag: str, text: str) -> None:
        """Add a text.

        Args:
            tag: Name of the text.
            text: Markdown.
        """
        self.add_summary(summaries.text(tag, text))

    def add_custom_scalars(self, layout: Mapping[str, Mapping[str, Any]]) -> None:
        """Add the layout of the tab Custom Scalars.

        Args:
            layout: Charts by category and title, as ``SummaryWriter.add_custom_scalars`` takes them.
        """
        self.add_summary(summaries.custom_scalars(layout))

    def add_summary(self, summary: Any, step: int | None = None) -> None:
        """Add a summary, such as those of the HParams plugin.

        Args:
            summary: A ``Summary`` of TensorBoard.
            step: The step; None for a summary of the whole run.
        """
        self._add(Event(summary=summary, step=step))

    def _add(self, event: Any) -> None:
        """Buffer an event, and write the buffer if the last write is old enough."""
        event.wall_time = time.time()
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
